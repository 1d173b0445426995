nop.in predicated src=tile0+0x0 next=nowhere
end.in
