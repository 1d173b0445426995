.const 0g
end.in
