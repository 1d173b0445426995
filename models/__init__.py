"""Reference networks: how to build them, example inputs, where their trained weights come from."""

if __name__ != "sparsecc.models":
    raise ImportError("import sparsecc.models; the top-level models/ folder is only where its source lives")
