move.in
end.in
