nop.in tag=1 tag=1
end.in
