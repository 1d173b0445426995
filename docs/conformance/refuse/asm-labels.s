a:
nop.in
a:
end.in
