"""Contracts in standard ONNX operators: model-local functions that give the unit's exact selection in any onnxruntime.

ONNX (opset 20) cannot look at the bits of a float, so the magnitude is computed: divide by the power of two below,
which is exact, and count mantissa steps. Log only guesses that power; two comparisons put it right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx.parser
from onnx import helper

from sparsecc.formats.portable import DOMAIN, OPSET

from .contract import Contract
from .int8 import GREATEST, LEAST
from .keys import FLOATS, FloatFormat, offset_table
from .op import attributes
from .op_int8 import DEQUANTISE, QUANTISE
from .topk import STEPS

GRID_FUNCTIONS = {QUANTISE: "Quantise", DEQUANTISE: "Dequantise"}
"""The functions of ops on the grid of int8, which have attributes of the names of their arguments."""
_ATTRIBUTES = "share_q16, tile_elems, map_block, fill_block, axis, key_bits, key_shift, key_base, zero_point, skip_zero"
_MOVING_ATTRIBUTES = f"{_ATTRIBUTES}, share_lo_q16, share_hi_q16, period, margin_lo_q16, margin_hi_q16"

# Everything is counted in int64, but keys and their parts, which are int32.
_INDICES = """
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    two = Constant <value = int64 {2}> ()
    zero_1d = Constant <value = int64[1] {0}> ()
    one_1d = Constant <value = int64[1] {1}> ()
    two_1d = Constant <value = int64[1] {2}> ()
    zero_32 = Constant <value = int32 {0}> ()
    q = Constant <value_int: int = @share_q16> ()
    tile = Constant <value_int: int = @tile_elems> ()
    block = Constant <value_int: int = @map_block> ()
    fill_step = Constant <value_int: int = @fill_block> ()
    bits = Constant <value_int: int = @key_bits> ()
    shift = Constant <value_int: int = @key_shift> ()
    steps = Pow (two, shift)
    step = Cast <to = 6> (steps)
    key_count = Pow (two, bits)
    greatest = Sub (key_count, one)
    maximum = Cast <to = 6> (greatest)
    flat = Flatten <axis: int = @axis> (exact)
    flat_shape = Shape (flat)
    rows_1d = Slice (flat_shape, zero_1d, one_1d)
    elems_1d = Slice (flat_shape, one_1d, two_1d)
    elems = Squeeze (elems_1d)
    places = Range (zero, elems, one)
    map_shape = Shape (sensitivity)
    map_elems = Squeeze (map_shape)
    blocks = Div (places, block)
    map_index = Mod (blocks, map_elems)
    s_bytes = Gather (sensitivity, map_index)
    s = Cast <to = 6> (s_bytes)
    fill_shape = Shape (fill_exact)
    fill_elems = Squeeze (fill_shape)
    fill_blocks = Div (places, fill_step)
    fill_index = Mod (fill_blocks, fill_elems)
    fills = Gather (fill_exact, fill_index)
"""

_INT8_KEYS = """
    zero_point_64 = Constant <value_int: int = @zero_point> ()
    zero_point_32 = Cast <to = 6> (zero_point_64)
    signed = Sub (flat, zero_point_32)
    distance = Abs (signed)
    scores = Mul (distance, s)
    shifted = Div (scores, step)
    keys = Min (shifted, maximum)
"""


def _float_keys(form: FloatFormat, offsets: Sequence[int]) -> str:
    """Magnitudes of a float32 [R, N] that holds values of ``form`` exactly, then keys."""
    exponents = range(form.min_exponent, form.max_exponent + 1)
    powers = ", ".join(repr(2.0**e) for e in exponents)
    return f"""
    base_64 = Constant <value_int: int = @key_base> ()
    base = Cast <to = 6> (base_64)
    powers = Constant <value = float[{len(exponents)}] {{{powers}}}> ()
    offset_table = Constant <value = int32[256] {{{", ".join(map(str, offsets))}}}> ()
    zero_f = Constant <value = float {{0.0}}> ()
    one_f = Constant <value = float {{1.0}}> ()
    two_f = Constant <value = float {{2.0}}> ()
    one_32 = Constant <value = int32 {{1}}> ()
    finite_f = Constant <value = float {{{form.largest!r}}}> ()
    least_f = Constant <value = float {{{2.0**form.min_exponent!r}}}> ()
    log2_f = Constant <value = float {{{math.log(2)!r}}}> ()
    first_f = Constant <value = float {{{float(form.min_exponent)}}}> ()
    last_power = Constant <value = int32 {{{len(exponents) - 1}}}> ()
    mantissa_f = Constant <value = float {{{float(1 << form.mantissa_bits)}}}> ()
    mantissa = Constant <value = int32 {{{1 << form.mantissa_bits}}}> ()
    infinity = Constant <value = int32 {{{form.infinity}}}> ()
    # the guess, off by one at most
    nan = IsNaN (flat)
    any_magnitude = Abs (flat)
    magnitude = Where (nan, zero_f, any_magnitude)
    infinite = Greater (magnitude, finite_f)
    bounded = Min (magnitude, finite_f)
    normal = Max (bounded, least_f)
    log = Log (normal)
    log2 = Div (log, log2_f)
    above_first = Sub (log2, first_f)
    floor = Floor (above_first)
    guess_any = Cast <to = 6> (floor)
    guess_low = Max (guess_any, zero_32)
    guess = Min (guess_low, last_power)
    # put right: 1 <= normal / power < 2
    guessed_power = Gather (powers, guess)
    quotient = Div (normal, guessed_power)
    too_low = GreaterOrEqual (quotient, two_f)
    too_high = Less (quotient, one_f)
    up = Cast <to = 6> (too_low)
    down = Cast <to = 6> (too_high)
    upped = Add (guess, up)
    exponent = Sub (upped, down)
    # below the least normal number the exponent is 0 and the quotient less than 1, as in the bits
    power = Gather (powers, exponent)
    significand = Div (bounded, power)
    mantissa_steps = Mul (significand, mantissa_f)
    whole_steps = Floor (mantissa_steps)
    counted = Cast <to = 6> (whole_steps)
    binade = Mul (exponent, mantissa)
    finite_bits = Add (binade, counted)
    magnitude_bits = Where (infinite, infinity, finite_bits)
    offset = Gather (offset_table, s)
    weighted = Add (magnitude_bits, offset)
    based = Sub (weighted, base)
    scores = Max (based, zero_32)
    shifted = Div (scores, step)
    clamped = Min (shifted, maximum)
    keys = Where (nan, maximum, clamped)
"""


# Tiles are rows of one width, the last one padded with ranks below all others. TopK would break ties towards the lower
# index by itself; distinct ranks (key, then place from the end) leave it no ties to break. Of no elements there is one
# tile all the same, as onnxruntime 1.31 dies of a Scan over none.
_TILES = """
    share_unit = Constant <value = int64 {65536}> ()
    last_place = Constant <value = int64 {65535}> ()
    no_rank = Constant <value = int64 {-1}> ()
    narrow = Min (tile, elems)
    width = Max (narrow, one)
    padded_count = Add (elems, width)
    rounded_count = Sub (padded_count, one)
    full_tiles = Div (rounded_count, width)
    tiles = Max (full_tiles, one)
    last_tile = Sub (tiles, one)
    covered = Mul (tiles, width)
    pad = Sub (covered, elems)
    pad_1d = Reshape (pad, one_1d)
    pads = Concat <axis = 0> (zero_1d, zero_1d, zero_1d, pad_1d)
    in_tile = Mod (places, width)
    from_end = Sub (last_place, in_tile)
    long_keys = Cast <to = 7> (keys)
    raised = Mul (long_keys, share_unit)
    ranks = Add (raised, from_end)
    padded = Pad (ranks, pads, no_rank)
    width_1d = Reshape (width, one_1d)
    tiles_1d = Reshape (tiles, one_1d)
    tiled_shape = Concat <axis = 0> (rows_1d, tiles_1d, width_1d)
    tiled = Reshape <allowzero = 1> (padded, tiled_shape)
    tile_numbers = Range (zero, tiles, one)
    is_last = Equal (tile_numbers, last_tile)
    last_elems = Sub (width, pad)
    k_shape = Concat <axis = 0> (rows_1d, tiles_1d, one_1d)
    outer_axes = Constant <value = int64[2] {0, 2}> ()
"""

_FIXED_K = """
    # k of a whole tile and of the last
    least = Min (q, one)
    whole_product = Mul (width, q)
    whole_quotient = Div (whole_product, share_unit)
    whole_k = Max (whole_quotient, least)
    last_product = Mul (last_elems, q)
    last_quotient = Div (last_product, share_unit)
    last_k = Max (last_quotient, least)
    tile_k = Where (is_last, last_k, whole_k)
    # the k-th greatest rank of each tile
    some_k = Max (whole_k, one)
    some_k_1d = Reshape (some_k, one_1d)
    greatest_ranks, unused = TopK <axis = 2, largest = 1, sorted = 1> (tiled, some_k_1d)
    k_less_one = Sub (tile_k, one)
    k_index_1d = Max (k_less_one, zero)
    k_index_3d = Unsqueeze (k_index_1d, outer_axes)
    k_index = Expand (k_index_3d, k_shape)
    anything = Greater (q, zero)
"""


def _k_at(name: str, elems: str, share: str) -> str:
    """``keep_elems`` of a tile that is not empty."""
    return f"""
    {name}_least = Min ({share}, one)
    {name}_product = Mul ({elems}, {share})
    {name}_quotient = Div ({name}_product, share_unit)
    {name}_k = Max ({name}_quotient, {name}_least)
"""


# The mass that any k would keep of a tile is a prefix sum over its ranks in order. So the scan over the tiles of all
# samples at once, which finds the k of each tile, carries three numbers per sample. Ranks and masses go through Where:
# onnxruntime 1.31's Max of int64 gives 0 for Max(3000000000, 0).
_MOVING_K = f"""
    q_lo = Constant <value_int: int = @share_lo_q16> ()
    q_hi = Constant <value_int: int = @share_hi_q16> ()
    period = Constant <value_int: int = @period> ()
    margin_lo = Constant <value_int: int = @margin_lo_q16> ()
    margin_hi = Constant <value_int: int = @margin_hi_q16> ()
    steps_in_range = Constant <value = int64 {{{STEPS}}}> ()
    {_k_at("start", "width", "q")}
    {_k_at("lo", "width", "q_lo")}
    {_k_at("hi", "width", "q_hi")}
    {_k_at("short", "last_elems", "q_hi")}
    range = Sub (hi_k, lo_k)
    part = Div (range, steps_in_range)
    move = Max (part, one)
    some_k = Max (hi_k, one)
    some_k_1d = Reshape (some_k, one_1d)
    greatest_ranks, unused = TopK <axis = 2, largest = 1, sorted = 1> (tiled, some_k_1d)
    is_real = GreaterOrEqual (greatest_ranks, zero)
    real_ranks = Where (is_real, greatest_ranks, zero)
    greatest_keys = Div (real_ranks, share_unit)
    first_masses = CumSum (greatest_keys, two)
    no_mass = Expand (zero, k_shape)
    masses = Concat <axis = 2> (no_mass, first_masses)
    is_element = GreaterOrEqual (tiled, zero)
    all_ranks = Where (is_element, tiled, zero)
    all_keys = Div (all_ranks, share_unit)
    totals = ReduceSum <keepdims = 1> (all_keys, two_1d)
    per_row = Concat <axis = 0> (rows_1d, one_1d)
    first_k = Expand (start_k, per_row)
    nothing = Expand (zero, per_row)
    last_ks, last_kept, last_total, last_seen, moving_ks = Scan <
        num_scan_inputs = 2,
        scan_input_axes = [1, 1],
        scan_output_axes = [1],
        body = after_tile (
            int64[rows, 1] k, int64[rows, 1] kept_before, int64[rows, 1] total_before, int64 seen_before,
            int64[rows, counts] mass, int64[rows, 1] total
        ) => (
            int64[rows, 1] next_k, int64[rows, 1] next_kept, int64[rows, 1] next_total, int64 next_seen,
            int64[rows, 1] own_k
        ) {{
            own_k = Identity (k)
            mass_at_k = GatherElements <axis = 1> (mass, k)
            kept_mass = Add (kept_before, mass_at_k)
            total_mass = Add (total_before, total)
            seen = Add (seen_before, one)
            ends = Equal (seen, period)
            any_mass = Greater (total_mass, zero)
            divisor = Where (any_mass, total_mass, one)
            raised_mass = Mul (kept_mass, share_unit)
            kept_share = Div (raised_mass, divisor)
            too_much = Greater (kept_share, margin_hi)
            too_little = Less (kept_share, margin_lo)
            less = Sub (k, move)
            fallen = Max (less, lo_k)
            more = Add (k, move)
            risen = Min (more, hi_k)
            risen_or_not = Where (too_little, risen, k)
            moved = Where (too_much, fallen, risen_or_not)
            decides = And (ends, any_mass)
            next_k = Where (decides, moved, k)
            next_kept = Where (ends, zero, kept_mass)
            next_total = Where (ends, zero, total_mass)
            next_seen = Where (ends, zero, seen)
        }}
    > (first_k, nothing, nothing, zero, masses, totals)
    padded_last = Greater (pad, zero)
    is_short = And (is_last, padded_last)
    is_short_3d = Unsqueeze (is_short, outer_axes)
    tile_k = Where (is_short_3d, short_k, moving_ks)
    k_less_one = Sub (tile_k, one)
    k_index = Max (k_less_one, zero)
    anything = Greater (tile_k, zero)
"""

_KEEP = """
    threshold = GatherElements <axis = 2> (greatest_ranks, k_index)
    reached = GreaterOrEqual (tiled, threshold)
    kept_tiled = And (reached, anything)
    covered_1d = Reshape (covered, one_1d)
    kept_shape = Concat <axis = 0> (rows_1d, covered_1d)
    kept_padded = Reshape <allowzero = 1> (kept_tiled, kept_shape)
    kept = Slice (kept_padded, zero_1d, elems_1d, one_1d)
    # what equals the fill needs no sending
    skip = Constant <value_int: int = @skip_zero> ()
    skip_equal = Cast <to = 9> (skip)
    equal = Equal (flat, fills)
    skipped = And (equal, skip_equal)
    not_skipped = Not (skipped)
    sent = And (kept, not_skipped)
    # Bits are copied, from x or from the fill behind it: onnxruntime's Where would turn -0 into 0
    everything_1d = Constant <value = int64[1] {-1}> ()
    x_1d = Reshape (x, everything_1d)
    source = Concat <axis = 0> (x_1d, fill)
    count_1d = Shape (x_1d)
    count = Squeeze (count_1d)
    all_places = Range (zero, count, one)
    own_index = Reshape <allowzero = 1> (all_places, flat_shape)
    behind = Add (fill_index, count)
    index_2d = Where (sent, own_index, behind)
    shape = Shape (x)
    index = Reshape <allowzero = 1> (index_2d, shape)
    y = Gather (source, index)
"""


_GRID = """
    step = Constant <value_float: float = @scale> ()
    zero_64 = Constant <value_int: int = @zero_point> ()
    zero_point_f = Cast <to = 1> (zero_64)
"""


def grid_functions() -> list[onnx.FunctionProto]:
    """``Quantise(x; scale, zero_point)`` -> q and ``Dequantise(q; scale, zero_point)`` -> x, as int8.py says."""
    head = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
    quantise = f"""{head}
Quantise <scale, zero_point> (x) => (q)
{{
    {_GRID}
    nothing = Constant <value = float {{0.0}}> ()
    least = Constant <value = float {{{LEAST}.0}}> ()
    greatest = Constant <value = float {{{GREATEST}.0}}> ()
    nan = IsNaN (x)
    number = Where (nan, nothing, x)
    quotient = Div (number, step)
    whole = Round (quotient)
    place = Add (whole, zero_point_f)
    bounded = Clip (place, least, greatest)
    q = Cast <to = 3> (bounded)
}}
"""
    dequantise = f"""{head}
Dequantise <scale, zero_point> (q) => (x)
{{
    {_GRID}
    place = Cast <to = 1> (q)
    steps = Sub (place, zero_point_f)
    x = Mul (steps, step)
}}
"""
    return [onnx.parser.parse_function(text) for text in (quantise, dequantise)]


def function_name(dtype: str, *, moving: bool = False) -> str:
    """KeepTop_float32, KeepTopMoving_float32 and so on: the op type of a contract on an edge of ``dtype``."""
    return f"KeepTop{'Moving' * moving}_{dtype}"


def keep_top_function(dtype: str, *, moving: bool = False) -> onnx.FunctionProto:
    """``KeepTop_<dtype>(x, sensitivity, fill; ...)`` -> y, with the inputs and attributes of the torch op."""
    exact_type = onnx.TensorProto.INT32 if dtype == "int8" else onnx.TensorProto.FLOAT
    keys = _INT8_KEYS if dtype == "int8" else _float_keys(FLOATS[dtype], offset_table(dtype).tolist())
    return onnx.parser.parse_function(f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
{function_name(dtype, moving=moving)} <{_MOVING_ATTRIBUTES if moving else _ATTRIBUTES}> (x, sensitivity, fill) => (y)
{{
    exact = Cast <to = {int(exact_type)}> (x)
    fill_exact = Cast <to = {int(exact_type)}> (fill)
    {_INDICES}
    {keys}
    {_TILES}
    {_MOVING_K if moving else _FIXED_K}
    {_KEEP}
}}
""")


def keep_top_node(contract: Contract, inputs: Sequence[str], output: str, fill_block: int = 1) -> onnx.NodeProto:
    """A call of the function: inputs are the names of x, sensitivity (u8) and fill (x's dtype).

    Of a contract with a scale, x is int8, between ``Quantise`` and ``Dequantise``.
    """
    contract = replace(contract, scale=0.0)
    name = function_name(contract.key.dtype, moving=contract.period > 0)
    node = helper.make_node(name, list(inputs), [output], domain=DOMAIN)
    numbers = attributes(contract, fill_block)
    node.attribute.extend(helper.make_attribute(name, int(value)) for name, value in numbers.items())
    return node
