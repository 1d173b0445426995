"""What lowering builds a plan from: values, steps in order, tables, and the arena they end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import fx

from .arena import Buffer, FrameShape, place, share_frames
from .kernels.spec import COPIES, VECTOR_LANES, Elementwise, ElementwiseParameters, Epilogue, Window, WindowParameters
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
    choices: Mapping[str, str]
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
        buffers, slots = share_frames(self._buffers(), self.frames)
        offsets, arena_elems = place(buffers)

        def relocated(ref: Ref) -> Ref:
            return Ref("arena", offsets[slots[ref.index]] + ref.offset) if ref.space == "arena" else ref

        steps = tuple(
            replace(step, x=relocated(step.x), y=relocated(step.y), z=relocated(step.z)) for step in self.steps
        )
        return Variant(lanes, rows_most, steps, arena_elems)

    def _buffers(self) -> list[Buffer]:
        """Steps that join run at once: what the one last reads, the other must not overwrite."""
        phase, lives = 0, dict[int, tuple[int, int]]()
        for step in self.steps:
            phase += not step.joins
            for ref in (step.x, step.y, step.z):
                if ref != NOTHING and ref.space == "arena":
                    first, _ = lives.get(ref.index, (phase, phase))
                    lives[ref.index] = (first, phase)
        return [Buffer(elems, *lives.get(number, (0, 0))) for number, elems in enumerate(self.buffer_elems)]
