"""Lower `weight x value`: choose the kernel, the split of lanes into tiles and of rows into chunks, the column table.

Letters: M rows (output channels), K columns of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsecc.regions import Weight, tensor

from .builder import Builder, Value, vectors
from .kernels.parameters import MatmulParameters, VectorParameters
from .kernels.spec import COPIES, VECTOR_LANES, WINDOW_ELEMS, Dense, Epilogue, Gemv, Index, Spmm, Spmv, SpmvSell
from .plan import NOTHING, Prepare, Ref, Step

# What a tile reads of x, again for every row, should stay in the first-level cache. Matrices whose tiles read more are
# read in slices of about that size, but of no fewer than SLICE_NONZEROS blocks of a block row in the mean, for a slice
# costs a reload of every sum. One thread of an EPYC (Zen 4), slices against none: 768 columns and 64 tokens 1.27 times
# as fast at 80 % zeros, 1.10 at 90 %; ResNet-50 1.16 and 1.12. Against slices of 256 columns at any density: BERT 1.26
# at 60 % and 1.07 at 80 %, ResNet-50 1.04 at 80 %, 1.02 at 90 and 95 %.
CACHE_BYTES, SLICE_NONZEROS = 32 * 1024, 16
# Slices gain with the bytes of x that a tile reads, times the blocks of a block row in a slice, which share the reload
# of its sums: the least product. Half of it made ResNet-50 0.5 % slower, twice of it 1 % (slices of 256 columns).
SLICE_GAIN_LEAST = 1_500_000
SLICE_LANES_LEAST = 32  # fewer were not measured
# Vectors per tile. Of wide tiles a row's own costs (its bias, its branch, its epilogue) are shared by more lanes:
# 3x3 convolutions of ResNet-50 gain 3 to 16 %, 64 -> 256 channels at 56x56 gains 8 %. Tiles that read much of x lose
# (256 -> 1024 channels 11 %), and so do many small layers (ResNet-56 3 %, on two threads 18 %).
TILE_VECTORS, WIDE_TILE_VECTORS = 4, 7
ACCUMULATORS_MOST = 16  # of 32 AVX-512 registers: block rows x vectors
DENSE_ROWS = {1: 12, 2: 8, 3: 6, 4: 6}  # register tile of a dense matrix by vectors: at most 24 accumulators
CHUNK_WORK = 50_000  # FLOPs of a unit below which splitting further helps no thread
# Of a chunk, whose rows are sorted in each slice: a loop's end is foreseen where it is that of the row before. BERT
# gains 8 to 10 %, MiniLM 2 to 4 %, ResNet-50 at 90 % zeros 3 % (one thread of an Emerald Rapids Xeon); with chunks of
# 24 rows MiniLM gains nothing. Zen 4 was indifferent to sorting.
SORTED_ROWS_LEAST = 64
# But a layer is not left to one thread for that: ResNet-56 with 80 % zeros, whose last third has 64 rows and one tile,
# takes 0.76 ms where it took 0.92 (two threads of a Zen 3 EPYC; 4 chunks or 2, and one thread, are indifferent).
UNITS_LEAST = 4
UNITS_MOST = 16  # per layer; the runtime hands out at most as many pieces


@dataclass(frozen=True)
class Columns:
    """Where column (c, ky, kx) finds its x: (c * channel_step + row_steps[ky] + column_steps[kx]) * unit elements."""

    unit: int
    channel_step: int = 1
    row_steps: tuple[int, ...] = (0,)
    column_steps: tuple[int, ...] = (0,)

    def span(self, channels: int) -> int:
        """One more than the largest index."""
        return (channels - 1) * self.channel_step + max(self.row_steps) + max(self.column_steps) + 1

    @property
    def kernel_size(self) -> int:
        return len(self.row_steps) * len(self.column_steps)

    def reach(self, columns: int, lanes: int) -> int:
        """Elements of x that a tile of ``lanes`` reads for so many columns; the rows of a kernel overlap."""
        rows = min(lanes * len(self.row_steps), lanes + max(self.row_steps) * self.unit)
        return columns // self.kernel_size * len(self.column_steps) * rows


@dataclass(frozen=True)
class Stored:
    """A weight as the kernels see it: its format's block shape, references to its arrays, and its stored elements."""

    rows: int
    cols: int
    block_rows: int
    block_cols: int
    sparse: bool
    values: Ref
    columns: Ref
    row_starts: Ref
    stored_index: Index
    blocks: int

    @property
    def elems(self) -> int:
        return self.blocks * self.block_rows * self.block_cols if self.sparse else self.rows * self.cols


def stored(builder: Builder, weight: Weight) -> Stored:
    if weight.format == "dense":
        values = builder.input(weight.arrays[0])
        return Stored(weight.rows, weight.cols, 1, 1, False, values, NOTHING, NOTHING, "uint16", 0)
    stored_values, columns, row_starts = weight.arrays
    shape = tuple(int(size) for size in tensor(stored_values).shape)
    block_rows, block_cols = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
    refs = (builder.input(stored_values), builder.input(columns), builder.input(row_starts))
    index = _index_name(str(tensor(columns).dtype))
    return Stored(weight.rows, weight.cols, block_rows, block_cols, True, *refs, index, shape[0])


def multiply(
    builder: Builder,
    name: str,
    weight: Weight,
    bias: Ref,
    x: Ref,
    columns: Columns,
    y: Value,
    z: Value | None,
    epilogue: Epilogue,
) -> None:
    """Emit y = epilogue(weight x + bias, z): one step per tile width, or one over a plain vector, x contiguous.

    y and z are different buffers; `Builder.finish` may give them the same memory.
    """
    matrix = stored(builder, weight)
    if y.pitch == 1:
        _vector(builder, name, matrix, bias, x, y, z, epilogue)
        return
    z_ref, z_pitch = (NOTHING, 0) if z is None else (z.ref, z.pitch)
    index: Index = "uint16" if columns.span(-(-matrix.cols // columns.kernel_size)) <= 1 << 16 else "int32"
    most = tile_vectors(matrix, columns, y)
    first_vector = 0
    y_ref = replace(y.ref, offset=y.ref.offset - y.copy_pitch)
    splits = split_vectors(vectors(y.lanes), most)
    tiles_of_all, narrowest = sum(tiles for _, tiles in splits), min(width for width, _ in splits)
    tile_work = 2 * matrix.elems * narrowest * VECTOR_LANES
    slices = slice_blocks(matrix, columns, splits[0][0] * VECTOR_LANES)
    chunks_sorted = max(matrix.rows // SORTED_ROWS_LEAST, -(-UNITS_LEAST // tiles_of_all)) if slices else UNITS_MOST
    chunks_most = max(1, min(UNITS_MOST // tiles_of_all, tile_work // CHUNK_WORK, chunks_sorted))
    for number, (width, tiles) in enumerate(splits):
        lanes = width * VECTOR_LANES
        frame_width = _frame_width(y, lanes)
        spec: Spmm | Dense
        if matrix.sparse:
            spec = Spmm(
                matrix.block_rows, matrix.block_cols, width, index, epilogue, frame_width=frame_width, sliced=slices > 0
            )
        else:
            spec = Dense(DENSE_ROWS[width], width, index, epilogue, frame_width)
        block_rows = -(-matrix.rows // spec.block_rows)
        work = 2 * matrix.elems * lanes * tiles
        chunks = min(block_rows, chunks_most)
        base = first_vector * VECTOR_LANES
        parameters = MatmulParameters(
            block_rows=block_rows,
            rows=matrix.rows,
            columns=matrix.cols,
            chunks=chunks,
            unit=columns.unit,
            x_base=base,
            x_tile=lanes,
            y_base=base,
            y_tile=lanes,
            y_pitch=y.pitch,
            z_pitch=z_pitch,
            copy_pitch=y.copy_pitch,
            width=y.width,
            lanes=y.lanes,
            slices=-(-matrix.cols // slices) if slices else 1,
        )
        real = max(0, min(y.lanes - base, lanes * tiles))  # padding behind them is computed along
        costs = 2 * matrix.elems * real, _touched_bytes(matrix, columns, real, y, z)
        step = Step(name, spec, parameters, tiles * chunks, work, *costs, x, y_ref, z_ref, joins=number > 0)
        builder.emit(_with_matrix(builder, step, matrix, bias, _prepare(matrix, columns, index, slices, chunks)))
        first_vector += width * tiles


def _frame_width(y: Value, lanes: int) -> int | None:
    """`Spmm.frame_width` for tiles of ``lanes`` pixels of y."""
    if not y.framed:
        return None
    rows_fit_vectors = VECTOR_LANES % y.width == 0 or y.width % VECTOR_LANES == 0
    return y.width if rows_fit_vectors and lanes % y.width == 0 and y.lanes % VECTOR_LANES == 0 else 0


def split_vectors(vectors: int, most: int) -> list[tuple[int, int]]:
    """(vectors per tile, tiles): as few tiles as possible, of nearly equal width: 13 by 4 is 4 + 3 + 3 + 3."""
    tiles = -(-vectors // most)
    small, wide = divmod(vectors, tiles)
    return [(width, count) for width, count in ((small + 1, wide), (small, tiles - wide)) if count]


def tile_vectors(matrix: Stored, columns: Columns, y: Value) -> int:
    """The most vectors of a tile. Tiles that are whole rows of a frame stay narrow: `store_rows` is worth more.

    So do those that would read too much of x: kernels larger than 1x1, unless in slices.
    """
    lanes = WIDE_TILE_VECTORS * VECTOR_LANES
    if not matrix.sparse or _frame_width(y, TILE_VECTORS * VECTOR_LANES):
        wide = False
    elif columns.kernel_size == 1:
        wide = 4 * columns.reach(matrix.cols, lanes) <= CACHE_BYTES
    else:
        wide = slice_blocks(matrix, columns, lanes) > 0
    return max(1, min(WIDE_TILE_VECTORS if wide else TILE_VECTORS, ACCUMULATORS_MOST // matrix.block_rows))


def slice_blocks(matrix: Stored, columns: Columns, lanes: int) -> int:
    """The width of the slices in which a matrix should be read for a tile of ``lanes``, 0 for as a whole.

    Slices are of nearly equal width: a short last one would only cost another pass over y. Narrow tiles have those of
    tiles of `TILE_VECTORS`: panels of all widths share one table of values.
    """
    if not matrix.sparse or matrix.block_cols != 1 or lanes < SLICE_LANES_LEAST:
        return 0
    block_rows = -(-matrix.rows // matrix.block_rows)
    tile_bytes = 4 * columns.reach(matrix.cols, max(lanes, TILE_VECTORS * VECTOR_LANES))
    slices = min(round(tile_bytes / CACHE_BYTES), matrix.blocks // (block_rows * SLICE_NONZEROS))
    gain = matrix.blocks * 4 * columns.reach(matrix.cols, lanes)
    return -(-matrix.cols // slices) if slices > 1 and gain >= SLICE_GAIN_LEAST * slices * block_rows else 0


def _vector(
    builder: Builder, name: str, matrix: Stored, bias: Ref, x: Ref, y: Value, z: Value | None, epilogue: Epilogue
) -> None:
    columns = Columns(1)
    index: Index = "uint16" if matrix.cols <= 1 << 16 else "int32"
    spec: Spmv | SpmvSell | Gemv
    height, width = matrix.block_rows, matrix.block_cols
    if not matrix.sparse:
        spec = Gemv(epilogue)
    elif (height, width) == (1, 1) and matrix.cols >= WINDOW_ELEMS:
        spec, height = SpmvSell(epilogue), VECTOR_LANES
    else:
        spec = Spmv(height, width, index, epilogue)
    block_rows = -(-matrix.rows // height)
    flops, touched = 2 * matrix.elems, _touched_bytes(matrix, columns, 1, y, z)
    work = flops + touched  # as Step says; every weight is read once, so the bytes are what takes time
    chunks = max(1, min(block_rows, UNITS_MOST, work // CHUNK_WORK))
    parameters = VectorParameters(block_rows, matrix.rows, matrix.cols, chunks, columns.unit)
    z_ref = NOTHING if z is None else z.ref
    step = Step(name, spec, parameters, chunks, work, flops, touched, x, y.ref, z_ref)
    if isinstance(spec, Gemv):
        builder.emit(replace(step, values=matrix.values, bias=bias))
        return
    table = _prepare(matrix, columns, index)
    if isinstance(spec, SpmvSell):
        table = replace(table, layout="sell")
    builder.emit(_with_matrix(builder, step, matrix, bias, table))


def _with_matrix(builder: Builder, step: Step, matrix: Stored, bias: Ref, cols: Prepare) -> Step:
    """The step with the arrays of its weight, in the layout of the table of columns."""
    prepared = builder.tables.prepared
    if cols.layout == "stored":
        return replace(step, rows=matrix.row_starts, cols=prepared(cols), values=matrix.values, bias=bias)
    rows, values = replace(cols, table="rows"), replace(cols, table="values", values=matrix.values.index)
    return replace(step, rows=prepared(rows), cols=prepared(cols), values=prepared(values), bias=bias)


def _prepare(matrix: Stored, columns: Columns, index: Index, slice_blocks: int = 0, chunks: int = 1) -> Prepare:
    return Prepare(
        rows=matrix.rows,
        cols=matrix.cols,
        index=index,
        channel_step=columns.channel_step,
        row_steps=columns.row_steps,
        column_steps=columns.column_steps,
        columns=matrix.columns.index if matrix.sparse else None,
        row_starts=matrix.row_starts.index if matrix.sparse else None,
        stored_index=matrix.stored_index,
        blocks=matrix.blocks,
        block_rows=matrix.block_rows,
        block_cols=matrix.block_cols,
        layout="sliced" if slice_blocks else "stored",
        slice_blocks=slice_blocks,
        chunks=chunks if slice_blocks else 1,
    )


def _touched_bytes(matrix: Stored, columns: Columns, lanes: int, y: Value, z: Value | None) -> int:
    """The weight once, the result in all its copies and what is added to it, and of x what any weight needs.

    The rows of a convolution's kernel read the same pixels: of them x counts once, its halo not at all.
    """
    x_rows = min(matrix.cols // len(columns.row_steps), matrix.elems)
    weight_bytes = 4 * (matrix.elems + matrix.rows) + 2 * matrix.blocks * matrix.block_cols
    return weight_bytes + 4 * lanes * (x_rows + matrix.rows * ((COPIES if y.framed else 1) + (z is not None)))


def _index_name(dtype: str) -> Index:
    return "uint16" if dtype == "torch.uint16" else "int32"
