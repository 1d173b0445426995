"""The CPU kernels: what exists is in ``spec``, one file per family writes them as S-TIR functions."""
