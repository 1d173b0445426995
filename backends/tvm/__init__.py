"""S-TIR kernels, their generation by TVM, and the static plan of a region."""
