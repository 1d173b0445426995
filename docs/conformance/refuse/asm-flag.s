nop.in fast
end.in
