"""Built-in passes, one file each, named as the pass."""

if __name__ != "sparsecc.passes":
    raise ImportError("import sparsecc.passes; the top-level passes/ folder is only where its source lives")
