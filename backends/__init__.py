"""Built-in backends."""

if __name__ != "sparsecc.backends":
    raise ImportError("import sparsecc.backends; the top-level backends/ folder is only where its source lives")
