"""How the kernels lay out channels, harmonics and the products of both in memory."""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from functools import lru_cache
from math import factorial, pi, prod, sqrt

import numpy as np
from numpy.typing import NDArray

#: Neighbours whose harmonics are computed before they are used: few enough to stay in cache, whole
#: registers, and an odd number of cache lines, so that the rows do not share the same cache sets.
BLOCK = 72


def padded_channels(n_max: int) -> int:
    """Radial channels including those that fill up the last vector."""
    return -(-n_max // 4) * 4


def row(l: int, m: int) -> int:
    """Row of a harmonic; m counts 0, then cosine and sine of 1, 2...: from 0 to 2l."""
    return l * l + m


def monic_recursion(l: int, m: int) -> float:
    """The b of Q_lm = z Q_(l-1)m - b Q_(l-2)m, the associated Legendre polynomials led by z^(l-m)."""
    return (l - 1 - m) * (l - 1 + m) / ((2 * l - 3) * (2 * l - 1))


@lru_cache(maxsize=32)
def row_scales(l_max: int) -> NDArray[np.float64]:
    """What makes unscaled harmonics orthonormal, times the root of the power spectrum's prefactor.

    With Q_lm led by z^(l-m) instead of the orthonormal harmonic's factor, a coefficient is too
    small by that factor; π √(8/(2l + 1)) multiplies products of two coefficients.
    """
    scales = np.empty((l_max + 1) ** 2)
    for l in range(l_max + 1):
        for m in range(l + 1):
            leading = prod(range(1, 2 * l, 2)) / factorial(l - m)
            norm = sqrt((2 * l + 1) / (4 * pi) * factorial(l - m) / factorial(l + m))
            scale = leading * norm * sqrt(2 if m else 1) * sqrt(pi * sqrt(8 / (2 * l + 1)))
            for k in {max(0, 2 * m - 1), 2 * m}:
                scales[row(l, k)] = scale
    return scales
