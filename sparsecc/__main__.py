"""``python -m sparsecc``: the command line where its script is not on the PATH."""

from sparsecc.cli import main

if __name__ == "__main__":
    main()
