nop.side
end.in
