nop.in tag=1e3
end.in
