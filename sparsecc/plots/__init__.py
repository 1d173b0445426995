"""Pictures of contracts and layers as SVG, PNG or PDF; needs matplotlib, the optional dependency `plot`."""

from .contracts import plot_contracts
from .drawing import SUFFIXES, verify_drawable
from .layers import plot_layers

__all__ = ["SUFFIXES", "plot_contracts", "plot_layers", "verify_drawable"]
