copy.in src=sram+0x0
end.in
