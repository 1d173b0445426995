nop.in size=3
end.in
