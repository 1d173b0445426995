"""Functions of a vector without libm: exp, relu, erf and tanh as ratios of polynomials, both forms of GELU."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

from .script import Expr, T, broadcast, let
from .spec import Function

# Odd rational approximations, coefficients from the highest power down (of x * P(x^2) / Q(x^2)).
# Source: Eigen 3.4, unsupported/SpecialFunctions (erf) and Core/MathFunctionsImpl.h (tanh), MPL-2.0.
# In float32 rounding dominates: errors of at most 3.4e-7 (erf, tanh) and 2.3e-7 * max(1, |x|) (both GELUs), measured
# over 2 million points of [-10, 10]. Fits of other degrees and limits came out no better.
ERF_LIMIT = 4.0
ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
TANH_LIMIT = 9.0
TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
EXP_LEAST = -87.3
LOG2_E = 1.44269504088896341
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# Source of the terms and of the two parts of ln 2: Cephes, expf.c (S. Moshier); the last two are 1.
EXP_TERMS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
    1.0,
    1.0,
)


def apply(function: Function, x: Expr) -> Expr:
    """The function of a vector or a number of float32."""
    match function:
        case "none":
            return x
        case "relu":
            return T.max(x, T.float32(0))
        case "gelu":
            x = let(x)
            half = let(x * T.float32(0.5))
            return half + half * _odd_ratio(x * T.float32(sqrt(0.5)), ERF_P, ERF_Q, ERF_LIMIT)
        case "gelu_tanh":
            x = let(x)
            half = let(x * T.float32(0.5))
            inner = x * (T.float32(sqrt(2 / pi)) + T.float32(0.044715 * sqrt(2 / pi)) * (x * x))
            return half + half * _odd_ratio(inner, TANH_P, TANH_Q, TANH_LIMIT)


def exp(x: Expr) -> Expr:
    """e^x of 16 lanes: 0 below EXP_LEAST, whose power is near the least normal number; not for x above 88.

    2^n times a polynomial of the rest, |rest| <= ln 2 / 2.
    """
    x = let(x)
    limited = let(T.max(x, broadcast(T.float32(EXP_LEAST))))
    n = let(T.floor(limited * broadcast(T.float32(LOG2_E)) + broadcast(T.float32(0.5))))
    rest = let(limited - n * broadcast(T.float32(LN2_HIGH)) - n * broadcast(T.float32(LN2_LOW)))
    bits = (T.Cast("int32x16", n) + broadcast(T.int32(127))) << broadcast(T.int32(23))
    power = _horner(rest, EXP_TERMS) * T.reinterpret("float32x16", bits)
    return T.Select(x < broadcast(T.float32(EXP_LEAST)), broadcast(T.float32(0)), power)


def _odd_ratio(x: Expr, numerator: Sequence[float], denominator: Sequence[float], limit: float) -> Expr:
    x = let(T.max(T.min(x, T.float32(limit)), T.float32(-limit)))
    square = let(x * x)
    return x * _horner(square, numerator) / _horner(square, denominator)


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    total = T.float32(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + T.float32(coefficient)
    return total
