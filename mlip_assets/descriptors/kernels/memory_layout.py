"""Memory layout of radial channels, spherical harmonics and expansion coefficients in the kernels."""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from functools import lru_cache
from math import factorial, pi, prod, sqrt

import numpy as np
from numpy.typing import NDArray

#: Neighbours whose harmonics are computed before they are used. They stay in cache and fill whole
#: registers. The number of cache lines is odd, so that the rows do not share the same cache sets.
BLOCK = 72


def padded_channels(n_max: int) -> int:
    """Radial channels, including those that fill the last vector register."""
    return -(-n_max // 4) * 4


def row(l: int, m: int) -> int:
    """Row of a harmonic. ``m`` runs from 0 to 2l: m = 0, then cosine and sine of |m| = 1, 2, …."""
    return l * l + m


def monic_recursion(l: int, m: int) -> float:
    """Coefficient b of the recursion Q_lm = z Q_(l-1)m - b Q_(l-2)m.

    Q_lm are the associated Legendre polynomials with leading term z^(l-m).
    """
    return (l - 1 - m) * (l - 1 + m) / ((2 * l - 3) * (2 * l - 1))


@lru_cache(maxsize=32)
def row_scales(l_max: int) -> NDArray[np.float64]:
    """Factor of each row, ((l_max + 1)²,), applied to the sums over unscaled harmonics.

    The factor makes the harmonics orthonormal, since Q_lm has the leading term z^(l-m). It also
    contains the square root of π √(8/(2l + 1)), the prefactor of the power spectrum.
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
