nop.in acq_sem=3
end.in
