"""Functions and sums of whole values, element by element."""

from __future__ import annotations

from typing import Any

from .math import apply
from .parameters import ElementwiseParameters
from .script import Arguments, T, divide, function, let, loop
from .spec import VECTOR_LANES, Elementwise


def elementwise(spec: Elementwise) -> Any:
    epilogue = spec.epilogue

    def body(a: Arguments, p: ElementwiseParameters) -> None:
        # The units of one call are one range: only the end of the value has a part that fills no vector.
        begin = let(a.begin * p.block)
        end = let(T.min(a.end * p.block, p.elements))
        vectors = let(divide(end - begin, VECTOR_LANES))
        with loop(0, vectors) as v:
            i = let(begin + v * VECTOR_LANES)
            x = a.x.load(i) + a.z.load(i) if epilogue.add else a.x.load(i)
            a.y.store(i, apply(epilogue.function, x))
        with loop(begin + vectors * VECTOR_LANES, end) as i:
            a.y[i] = apply(epilogue.function, a.x[i] + a.z[i] if epilogue.add else a.x[i])

    return function(spec.symbol, ElementwiseParameters, body)
