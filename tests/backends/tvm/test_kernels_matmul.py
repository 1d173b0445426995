"""Matrix kernels against numpy in float64. Letters: M rows, K columns, R x C a block."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from kernel_calls import (
    DENSE,
    FRAMED,
    GEMV,
    SELL,
    SLICED,
    SPMM,
    SPMV,
    Array,
    Placement,
    assert_untouched,
    call,
    epilogue,
    guarded,
    split_points,
    uniform,
)

from sparsecc.backends.tvm.codegen import MACHINES
from sparsecc.backends.tvm.kernels.parameters import MatmulParameters, VectorParameters
from sparsecc.backends.tvm.kernels.spec import WINDOW_ELEMS, Dense, Gemv, Isa, Spmm, Spmv, SpmvSell, in_place
from sparsecc.backends.tvm.kernels.spmm import register_tile

SHAPES = [(1, 1, 1.0), (7, 9, 0.5), (8, 8, 0.0), (9, 33, 0.1), (31, 32, 1.0), (33, 127, 0.3)]
PLACEMENTS: tuple[Placement, ...] = ("begin", "end")


class Packed(NamedTuple):
    dense: Array  # [M, K]
    rows: Array
    cols: Array
    values: Array


def pack(m: int, k: int, block: tuple[int, int], density: float) -> Packed:
    """Random blocks; the rows of the last block row that M does not have hold rubbish that must not be seen."""
    rng = np.random.default_rng(m + k)
    height, width = block
    block_rows, block_cols = -(-m // height), -(-k // width)
    present = rng.random((block_rows, block_cols)) < density
    values = rng.uniform(-1, 1, (int(present.sum()), height, width)).astype(np.float32)
    dense = np.zeros((block_rows, height, block_cols, width), np.float32)
    at_row, at_col = np.nonzero(present)
    dense[at_row, :, at_col, :] = values
    rows = np.concatenate([[0], np.cumsum(present.sum(1))]).astype(np.int32)
    cols = (at_col[:, None] * width + np.arange(width)).ravel()
    return Packed(dense.reshape(block_rows * height, -1)[:m], rows, cols, values)


def close(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def sliced(weight: Packed, chunks: int) -> Packed:
    """Blocks of one column in three slices of random width in every row. Each slice mixes the rows of a chunk."""
    starts, ends = weight.rows[:-1], weight.rows[1:]
    count, rng = len(starts), np.random.default_rng(0)
    chunk = np.repeat(np.arange(chunks), np.diff(np.arange(chunks + 1) * count // chunks))
    parts = np.stack([np.lexsort((rng.random(count), chunk)) for _ in range(3)])
    cuts = np.sort(rng.integers(starts, ends + 1, (2, count)), 0)
    begins, sizes = np.stack([starts, *cuts]), np.diff(np.stack([starts, *cuts, ends]), axis=0)
    begins, sizes = (np.take_along_axis(a, parts, 1).ravel() for a in (begins, sizes))
    order = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, sizes, strict=True)])
    rows = np.concatenate([[0], np.cumsum(sizes), parts.ravel()]).astype(np.int32)
    return Packed(weight.dense, rows, weight.cols[order], weight.values[order])


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("spec", [*SPMM, *SLICED, *DENSE], ids=lambda spec: spec.symbol)
def test_matrix_times_lanes(spec: Spmm | Dense, isa: Isa, placement: Placement) -> None:
    lanes, tiles, step = spec.vectors * 16, 3, 2  # a column index counts steps of 2 rows of x, to tell it from a row
    for m, k, density in SHAPES:
        block = (spec.block_rows, spec.block_cols) if isinstance(spec, Spmm) else (1, 1)
        weight = pack(m, k, block, density)
        k = weight.dense.shape[1]
        x, z, bias = uniform(tiles, k * step, lanes), uniform(tiles, m, lanes, seed=1), uniform(m, seed=2)
        expected = epilogue(spec.epilogue, weight.dense.astype(np.float64) @ x[:, ::step] + bias[:, None], z)
        block_rows, every_column = -(-m // spec.block_rows), np.arange(k, dtype=np.int32)
        stored = weight
        for chunks in {1, block_rows, max(1, block_rows // 2)}:
            weight = sliced(stored, chunks) if isinstance(spec, Spmm) and spec.sliced else stored
            p = MatmulParameters(
                block_rows,
                m,
                k,
                chunks,
                step * lanes,
                x_base=0,
                x_tile=k * step * lanes,
                y_base=0,
                y_tile=m * lanes,
                y_pitch=lanes,
                z_pitch=lanes,
                slices=3,
            )
            run = partial(
                call,
                spec,
                isa,
                p,
                tiles * chunks,
                x=guarded(x, placement),
                z=guarded(z, placement),
                rows=guarded(weight.rows),
                cols=guarded((weight.cols if isinstance(spec, Spmm) else every_column).astype(spec.index)),
                values=guarded(weight.values if isinstance(spec, Spmm) else weight.dense),
                bias=guarded(bias),
            )
            y, parts = (guarded(np.zeros_like(z), placement) for _ in range(2))
            run(y=y)
            run(y=parts, splits=split_points(tiles * chunks))
            close(y, expected)
            np.testing.assert_array_equal(parts, y)
            assert_untouched(y, placement)
            if in_place(spec):
                sums = guarded(z, placement)
                run(y=sums, z=sums, splits=split_points(tiles * chunks))
                np.testing.assert_array_equal(sums, y)


def test_bases_and_pitches_reach_a_part_of_a_value(isa: Isa) -> None:
    """The last 32 of 96 lanes of a value with pitch 96, the sums added onto y itself."""
    spec = Spmm(1, 1, 2, "int32", SPMM[-3].epilogue)
    assert spec.epilogue.add
    m, k, pitch = 9, 12, 96
    weight = pack(m, k, (1, 1), 0.4)
    x, y, bias = uniform(k, pitch), uniform(m, pitch, seed=1), uniform(m)
    expected = y.astype(np.float64)
    expected[:, 64:] = epilogue(spec.epilogue, weight.dense.astype(np.float64) @ x[:, 64:] + bias[:, None], y[:, 64:])
    p = MatmulParameters(m, m, 0, 2, pitch, x_base=64, x_tile=32, y_base=64, y_tile=32, y_pitch=pitch, z_pitch=pitch)
    cols = weight.cols.astype(np.int32)
    call(spec, isa, p, 2, x=x, y=y, z=y, rows=weight.rows, cols=cols, values=weight.values, bias=bias)
    close(y, expected)


@pytest.mark.parametrize("spec", FRAMED, ids=lambda spec: spec.symbol)
def test_a_frame_is_written_between_its_zeros(spec: Spmm | Dense, isa: Isa) -> None:
    """Every copy is the image moved by a column, and nothing around it changes, in whatever order tiles come."""
    tile = spec.vectors * 16
    widths = [spec.frame_width] if spec.frame_width else [1, 2, 7, 8, 9, 14, 16, 31, 32, 33, 100]
    m, k = 9, 12
    for width in widths:
        tiles = 2 if spec.frame_width else -(-(2 * width + 5) // tile)
        height = tiles * tile // width if spec.frame_width else (tiles * tile - 5) // width
        lanes, rows = height * width, -(-(width + tiles * tile + 1) // width)
        block = (spec.block_rows, spec.block_cols) if isinstance(spec, Spmm) else (1, 1)
        weight = pack(m, k, block, 0.4)
        if isinstance(spec, Spmm) and spec.sliced:
            weight = sliced(weight, -(-m // spec.block_rows))
        x, z, bias = uniform(k, tiles * tile), uniform(m, tiles * tile + 3, seed=1), uniform(m, seed=2)
        total = weight.dense.astype(np.float64) @ x + bias[:, None]
        image = epilogue(spec.epilogue, total, z[:, :-3])[:, :lanes].reshape(m, height, width)
        expected = np.zeros((3, m, rows, width))
        expected[0, :, 1 : height + 1, 1:] = image[:, :, :-1]
        expected[1, :, 1 : height + 1] = image
        expected[2, :, 1 : height + 1, :-1] = image[:, :, 1:]
        block_rows = -(-m // spec.block_rows)
        pitches = {"y_pitch": rows * width, "z_pitch": tiles * tile + 3, "copy_pitch": m * rows * width}
        p = MatmulParameters(
            block_rows,
            m,
            k,
            block_rows,
            tiles * tile,
            x_base=0,
            x_tile=tile,
            y_base=0,
            y_tile=tile,
            **pitches,
            width=width,
            lanes=lanes,
            slices=3,
        )
        y = guarded(np.zeros_like(expected, np.float32))
        call(
            spec,
            isa,
            p,
            tiles * block_rows,
            x=x,
            y=y.reshape(-1)[width:],
            z=guarded(z),
            rows=weight.rows,
            cols=(weight.cols if isinstance(spec, Spmm) else np.arange(k)).astype(spec.index),
            values=guarded(weight.values if isinstance(spec, Spmm) else weight.dense),
            bias=guarded(bias),
            splits=split_points(tiles * block_rows),
        )
        close(y, expected)
        np.testing.assert_array_equal(y[expected == 0], 0)
        assert_untouched(y, "end")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("spec", [*SPMV, *GEMV], ids=lambda spec: spec.symbol)
def test_matrix_times_vector(spec: Spmv | Gemv, isa: Isa, placement: Placement) -> None:
    step = 3 if isinstance(spec, Spmv) else 1
    for m, k, density in SHAPES:
        block = (spec.block_rows, spec.block_cols) if isinstance(spec, Spmv) else (1, 1)
        weight = pack(m, k, block, density)
        k = weight.dense.shape[1]
        x, z, bias = uniform((k - 1) * step + 1), uniform(m, seed=1), uniform(m, seed=2)
        expected = epilogue(spec.epilogue, weight.dense.astype(np.float64) @ x[::step] + bias, z)
        block_rows = -(-m // block[0])
        for chunks in {1, block_rows, max(1, block_rows // 2)}:
            p = VectorParameters(block_rows, m, k, chunks, step)
            run = partial(
                call,
                spec,
                isa,
                p,
                chunks,
                x=guarded(x, placement),
                z=guarded(z, placement),
                rows=weight.rows,
                cols=guarded(weight.cols.astype(spec.index if isinstance(spec, Spmv) else np.int32)),
                values=guarded(weight.values if isinstance(spec, Spmv) else weight.dense, placement),
                bias=guarded(bias),
            )
            y, parts = (guarded(np.zeros_like(z), placement) for _ in range(2))
            run(y=y)
            run(y=parts, splits=split_points(chunks))
            close(y, expected)
            np.testing.assert_array_equal(parts, y)
            assert_untouched(y, placement)


def sell(weight: Packed) -> Packed:
    """Groups of 16 rows, every row in windows of its own choice: the kernel must not care which."""
    m, k = weight.dense.shape
    starts, windows, places, values = [0], list[int](), list[Array](), list[Array]()
    for group in np.split(weight.dense.copy(), range(16, m, 16)):
        for window in sorted({min(c // 8 * 8, k - WINDOW_ELEMS) for c in np.nonzero(group)[1]}):
            rest = group[:, window : window + WINDOW_ELEMS]
            while rest.any():
                place = (rest != 0).argmax(1)
                rows = np.arange(len(rest))
                windows.append(int(window))
                places.append(np.pad(place, (0, 16 - len(rest))))
                values.append(np.pad(rest[rows, place], (0, 16 - len(rest))))
                rest[rows, place] = 0
        starts.append(len(windows))
    rows = np.array([*starts, *windows], np.int32)
    cols, packed = (np.concatenate([np.zeros(0), *arrays]) for arrays in (places, values))
    return Packed(weight.dense, rows, cols.astype(np.uint8), packed.astype(np.float32))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("spec", SELL, ids=lambda spec: spec.symbol)
def test_sell_matrix_times_vector(spec: SpmvSell, isa: Isa, placement: Placement) -> None:
    for m, k, density in [(1, 32, 1.0), (7, 33, 0.5), (16, 40, 0.0), (31, 127, 0.1), (33, 127, 1.0), (127, 64, 0.02)]:
        weight = pack(m, k, (1, 1), density)
        x, z, bias = uniform(k), uniform(m, seed=1), uniform(m, seed=2)
        expected = epilogue(spec.epilogue, weight.dense.astype(np.float64) @ x + bias, z)
        rows, cols, values = (guarded(a) for a in sell(weight)[1:])
        groups = -(-m // 16)
        for chunks in {1, groups}:
            p = VectorParameters(groups, m, k, chunks, 1)
            run = partial(
                call,
                spec,
                isa,
                p,
                chunks,
                x=guarded(x, placement),
                z=guarded(z, placement),
                bias=guarded(bias, placement),
                rows=rows,
                cols=cols,
                values=values,
            )
            y, parts = (guarded(np.zeros_like(z), placement) for _ in range(2))
            run(y=y)
            run(y=parts, splits=split_points(chunks))
            close(y, expected)
            np.testing.assert_array_equal(parts, y)
            assert_untouched(y, placement)


@pytest.mark.parametrize(
    ("kernel", "avx2", "avx512"),
    [
        ((1, 4), (1, 4), (1, 4)),
        ((1, 7), (1, 7), (1, 7)),
        ((4, 4), (4, 1), (4, 4)),
        ((6, 4), (6, 1), (6, 4)),
        ((16, 1), (4, 1), (16, 1)),
        ((16, 2), (4, 1), (8, 2)),
        ((8, 4), (4, 1), (4, 4)),
    ],
)
def test_register_tiles(kernel: tuple[int, int], avx2: tuple[int, int], avx512: tuple[int, int]) -> None:
    assert register_tile(*kernel, MACHINES["avx2"].registers) == avx2
    assert register_tile(*kernel, MACHINES["avx512"].registers) == avx512
