"""An edge's tensor as SENDs: runs of equal tiles, with the k, codec and flags of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparsecc.contracts import keep_elems
from sparsecc.diagnostics import CompileError, Where

from .codecs import Codec, Dtype, smallest_exact, worst_case_bytes
from .descriptor import Flag
from .machine import Target
from .unit_program import Contract


@dataclass(frozen=True)
class Chunk:
    """``tiles`` tiles of ``tile_n`` elements from byte ``start`` of the edge's tensor.

    ``opens`` a sample: its contract register must be loaded before.
    """

    start: int
    bytes: int
    tile_n: int
    tiles: int
    k: int
    codec: Codec
    block_bytes: int
    flags: Flag
    more: Mapping[str, int]  # fields of the SEND alone
    opens: bool


@dataclass(frozen=True)
class Ranking:
    """Entries [first, first + entries) of the map: element j has entry first + (j // block) % repeat, or later copies.

    ``load``: what they are loaded with before the first SEND; None if section SMAP holds it.
    """

    first: int
    entries: int
    block: int  # elements
    repeat: int  # entries
    load: bytes | None = None


def without_zeros(target: Target) -> Codec:
    """The codec of a tensor less its zeros: of those that the target has, and that leave elements out, the one whose
    block is shortest where there are none; RAW if it has no such.
    """
    able = [codec for codec in (Codec.BITMASK, Codec.INDEX, Codec.RUN) if codec.name.lower() in target.codecs]
    n = target.selector.tile_elems
    return min(able, key=lambda codec: worst_case_bytes(codec, n, n, Dtype.FLOAT32), default=Codec.RAW)


@dataclass(frozen=True)
class Sending:
    """``rows`` samples of ``elems`` elements. ``numbers`` are the attributes of the edge's keep_top; none: all is sent.

    ``ranking``: by what, None if no map changes the order. ``register``: of a k that moves. ``lossless``: the codec of
    what has no contract, if its zeros are left out; None: it is sent whole.
    """

    name: str
    rows: int
    elems: int
    tile_elems: int
    numbers: Mapping[str, int]
    codecs: Sequence[Codec]
    lossless: Codec | None
    ranking: Ranking | None
    dtype: Dtype
    fill: int  # field of SEND and RECV
    register: int
    where: Where | None

    @property
    def moves(self) -> bool:
        return self.numbers.get("period", 0) > 0

    @property
    def contract(self) -> Contract:
        """What the register is loaded with; of a k that moves only."""
        names = ("share_q16", "share_lo_q16", "share_hi_q16")
        k, lo, hi = (keep_elems(self.tile_elems, self.numbers[name]) for name in names)
        return Contract(k, lo, hi, *(self.numbers[name] for name in ("period", "margin_lo_q16", "margin_hi_q16")))

    def chunks(self, room: int) -> Iterator[Chunk]:
        """Runs whose blocks fit ``room``. A sample's last tile may be shorter: its k never moves.

        Raises: CompileError SCC120 where only RAW is allowed, which sends what the contract drops.
        """
        width = self.dtype.width_bytes
        for row in range(self.rows):
            start = 0
            while start < self.elems:
                n = min(self.tile_elems, self.elems - start)
                k, moves = self._most(n), self.moves and n == self.tile_elems
                codec = self._codec(n, k, moves)
                block_bytes = worst_case_bytes(codec, n, k, self.dtype)
                tiles = max(1, min((self.elems - start) // n, room // block_bytes))
                begin = (row * self.elems + start) * width
                ranking = self.ranking if k < n or moves else None
                if ranking:  # entries of a descriptor follow one another
                    at = start // ranking.block % ranking.repeat
                    tiles = min(tiles, (ranking.entries - at) * ranking.block // n)
                flags, more = self._selection(start, codec, ranking, ranked=k < n or moves)
                if moves:
                    flags, more = flags | Flag.REGISTER, {**more, "contract": self.register}
                opens = moves and start == 0
                yield Chunk(begin, tiles * n * width, n, tiles, k, codec, block_bytes, flags, more, opens)
                start += tiles * n

    def _most(self, n: int) -> int:
        if not self.numbers:
            return n
        return keep_elems(n, self.numbers["share_hi_q16" if self.moves else "share_q16"])

    def _codec(self, n: int, k: int, moves: bool) -> Codec:
        if self.lossless is not None and k == n:
            return self.lossless
        allowed = [codec for codec in self.codecs if codec != Codec.RAW] if moves else self.codecs
        codec = smallest_exact(n, k, self.dtype, allowed)
        if codec is None:
            names = ", ".join(codec.name.lower() for codec in self.codecs) or "none"
            raise CompileError.of(
                "SCC120",
                f"the contract on {self.name} keeps {k} of {n} elements, and no codec allowed ({names}) leaves "
                "elements out",
                where=self.where,
                help="allow bitmask or index (--codecs), on a target that has them",
            )
        return codec

    def _selection(
        self, start: int, codec: Codec, ranking: Ranking | None, *, ranked: bool
    ) -> tuple[Flag, dict[str, int]]:
        flags = Flag(0)
        if ranked and self.numbers["key_bits"] == 16:
            flags |= Flag.WIDE_KEYS
        if (self.numbers.get("skip_zero") or (not self.numbers and self.lossless is not None)) and codec != Codec.RAW:
            flags |= Flag.SKIP_ZERO
        if ranking is None:
            return flags, {}
        entry = ranking.first + start // ranking.block % ranking.repeat
        return flags | Flag.SCORED, {"smap": entry, "dst_st2": ranking.block}
