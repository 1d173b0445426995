"""The Sparse Communication Unit: a DMA engine that moves only the values a contract keeps (docs/scu.md)."""
