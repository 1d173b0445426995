"""A pass and a target for sparsecc, found through entry points."""
