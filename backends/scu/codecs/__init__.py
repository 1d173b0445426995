"""How kept values travel: one block per tile, whose length an exact-k contract fixes at compile time.

    block = encode(Codec.BITMASK, values, kept, Dtype.INT8)
    decode(block).dense(fill=0)                             # the tile, with what was dropped replaced

block.py holds the 16-byte header and every check of it, bodies.py and huffman.py what follows the header, select.py
the choice among codecs.
"""

from .block import ALIGN_BYTES, HEADER_BYTES, MAX_ELEMS, VERSION, Codec, Dtype, Header, Tile
from .select import FIXED, decode, encode, shortest_block, smallest, smallest_exact, worst_case_bytes

__all__ = [
    "ALIGN_BYTES",
    "FIXED",
    "HEADER_BYTES",
    "MAX_ELEMS",
    "VERSION",
    "Codec",
    "Dtype",
    "Header",
    "Tile",
    "decode",
    "encode",
    "shortest_block",
    "smallest",
    "smallest_exact",
    "worst_case_bytes",
]
