"""What lowering builds a plan from: values, steps in order, tables, and the arena they end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from torch import fx

from .arena import Buffer, FrameShape, place, share_frames, take_over
from .kernels.parameters import ElementwiseParameters, MatmulParameters, WindowParameters
from .kernels.spec import COPIES, VECTOR_LANES, Elementwise, Epilogue, Window, in_place
from .plan import NOTHING, ZEROS, Prepare, Ref, Step, Variant

ELEMENTWISE_BLOCK_ELEMS = 2048  # 8 KiB of each operand: stays in the first-level cache


@dataclass(frozen=True)
class Value:
    """A matrix [channels][pitch] of one item; the first height * width of every row are real.

    In a frame, ``ref`` is the first pixel of the middle copy, and ``copy_pitch`` the elements between two copies.
    """

    ref: Ref
    channels: int
    height: int
    width: int
    pitch: int
    copy_pitch: int = 0

    @property
    def lanes(self) -> int:
        return self.height * self.width

    @property
    def elems(self) -> int:
        return self.channels * self.pitch

    @property
    def whole_vectors(self) -> bool:
        """Whether kernels that read whole vectors stay inside."""
        return self.pitch >= vectors(self.lanes) * VECTOR_LANES

    @property
    def framed(self) -> bool:
        return self.copy_pitch > 0


def kernel_pitch(lanes: int) -> int:
    """The pitch at which kernels like to work: whole vectors, or a plain vector of channels."""
    return 1 if lanes == 1 else vectors(lanes) * VECTOR_LANES


def vectors(lanes: int) -> int:
    return -(-lanes // VECTOR_LANES)


@dataclass
class Tables:
    """The prepared tables of a region, one of each kind, shared by its variants."""

    prepares: dict[Prepare, int] = field(default_factory=dict[Prepare, int])

    def prepared(self, prepare: Prepare) -> Ref:
        return Ref("prepared", self.prepares.setdefault(prepare, len(self.prepares)))


@dataclass
class Builder:
    """Collects the steps of one variant. Until `finish`, the index of an arena Ref is the number of a buffer."""

    tables: Tables
    input_numbers: Mapping[fx.Node, int]
    steps: list[Step] = field(default_factory=list[Step])
    buffer_elems: list[int] = field(default_factory=list[int])
    frames: dict[int, FrameShape] = field(default_factory=dict[int, FrameShape])

    def buffer(self, elems: int) -> Ref:
        self.buffer_elems.append(elems)
        return Ref("arena", len(self.buffer_elems) - 1)

    def frame(self, channels: int, height: int, width: int) -> Value:
        """Room for a frame. Its rows below the image take what the last tile and the shift of a copy reach."""
        rows = -(-(width + vectors(height * width) * VECTOR_LANES + 1) // width)
        copy_pitch = channels * rows * width
        ref = self.buffer(COPIES * copy_pitch)
        self.frames[ref.index] = (channels, height, width)
        return Value(replace(ref, offset=copy_pitch + width), channels, height, width, rows * width, copy_pitch)

    def emit(self, step: Step) -> None:
        self.steps.append(step)

    def input(self, node: fx.Node) -> Ref:
        return Ref("input", self.input_numbers[node])

    def bias(self, node: fx.Node | None) -> Ref:
        return ZEROS if node is None else self.input(node)

    def elementwise(self, name: str, x: Value, y: Value, z: Ref, epilogue: Epilogue) -> None:
        """y = epilogue(x, z); all three have the same pitch."""
        parameters = ElementwiseParameters(x.elems, ELEMENTWISE_BLOCK_ELEMS)
        units = -(-x.elems // ELEMENTWISE_BLOCK_ELEMS)
        work = 4 * x.elems * (2 + epilogue.add) + 20 * x.elems * (epilogue.function.startswith("gelu"))
        touched = 4 * x.elems * (2 + epilogue.add)
        self.emit(Step(name, Elementwise(epilogue), parameters, units, work, 0, touched, x.ref, y.ref, z))

    def window(
        self,
        name: str,
        x: Value,
        y: Value,
        start: tuple[int, int, int] = (0, 0, 0),
        step: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        sizes = (x.channels, x.height, x.width, x.pitch, y.channels, y.height, y.width, y.pitch)
        parameters = WindowParameters(*sizes, *start, *step)
        work = 8 * y.channels * y.lanes
        self.emit(Step(name, Window(), parameters, y.channels, work, 0, work, x.ref, y.ref))

    def copy(self, name: str, x: Value, y: Value) -> None:
        """The same lanes at another pitch or place. Rows of pixels are joined, and channels without padding too."""
        compact = x.pitch == x.lanes and y.pitch == y.lanes
        channels, width = (1, x.elems) if compact else (x.channels, x.lanes)
        x, y = (replace(v, channels=channels, height=1, width=width) for v in (x, y))
        self.window(name, x, y)

    def finish(self, lanes: int, rows_most: int | None) -> Variant:
        """Place the buffers and make every arena Ref an offset."""
        phases = list(accumulate(int(not step.joins) for step in self.steps))
        buffers = self._buffers(phases)
        buffers, slots = take_over(buffers, self._takers(buffers, phases))
        buffers, frame_slots = share_frames(buffers, self.frames)
        slots = [frame_slots[slot] for slot in slots]
        offsets, arena_elems = place(buffers)

        def relocated(ref: Ref) -> Ref:
            return Ref("arena", offsets[slots[ref.index]] + ref.offset) if ref.space == "arena" else ref

        steps = tuple(
            replace(step, x=relocated(step.x), y=relocated(step.y), z=relocated(step.z)) for step in self.steps
        )
        return Variant(lanes, rows_most, steps, arena_elems)

    def _buffers(self, phases: Sequence[int]) -> list[Buffer]:
        """Steps that join run at once: what the one last reads, the other must not overwrite."""
        lives = dict[int, tuple[int, int]]()
        for step, phase in zip(self.steps, phases, strict=True):
            for ref in (step.x, step.y, step.z):
                if ref != NOTHING and ref.space == "arena":
                    first, _ = lives.get(ref.index, (phase, phase))
                    lives[ref.index] = (first, phase)
        return [Buffer(elems, *lives.get(number, (0, 0))) for number, elems in enumerate(self.buffer_elems)]

    def _takers(self, buffers: Sequence[Buffer], phases: Sequence[int]) -> dict[int, int]:
        """For every buffer that may lie where an operand of its first step lay: that operand's buffer.

        The memory of what is added to is in the caches already: 64 -> 256 channels at 56x56 with 90 % zeros gain 5 %
        (one thread of an EPYC).
        """
        takers, kept = dict[int, int](), set[int]()  # both by the operand's buffer
        for step, phase in zip(self.steps, phases, strict=True):
            for name, old in (("x", step.x), ("z", step.z)):
                if old.space == "arena" and buffers[old.index].last_step == phase:
                    may = name in in_place(step.kernel) and _can_replace(old, step, buffers)
                    if not may or takers.setdefault(old.index, step.y.index) != step.y.index:
                        kept.add(old.index)
        return {new: old for old, new in takers.items() if old not in kept}


def _can_replace(operand: Ref, step: Step, buffers: Sequence[Buffer]) -> bool:
    """Whether the step's y is a buffer that begins where the operand's ends, and both are laid out alike."""
    p, y = step.parameters, step.y
    if y.space != "arena" or operand.offset != 0 or y.offset != 0:  # frames begin behind their zeros
        return False
    old, new = buffers[operand.index], buffers[y.index]
    same_pitch = not isinstance(p, MatmulParameters) or p.z_pitch == p.y_pitch
    return new.first_step == old.last_step and new.elems == old.elems and same_pitch
