.contract k=1
end.in
