.text
end.in
