"""The radial functions of SOAP, tabulated as piecewise polynomials."""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlip_assets.descriptors.frames import RadialAccuracy
from mlip_assets.descriptors.kernels.memory_layout import padded_channels
from mlip_assets.descriptors.reference import Array, LongDouble, gto_basis, neighbour_radius

#: Degree of the polynomials, and the largest error, relative to the largest value of each l.
_ACCURACY: dict[RadialAccuracy, tuple[int, float]] = {"standard": (3, 2e-8), "fine": (5, 1e-12)}

#: A table with more intervals would not fit into the cache of a processor.
_MAX_INTERVALS = 8192


@dataclass(frozen=True)
class RadialTable:
    """R_nl(r), the overlap of a Gaussian at distance r with the radial function g_nl.

    The expansion coefficients are c_nlm = Σ_i R_nl(r_i) Y_lm(r̂_i), summed over the neighbours i.

    Attributes
    ----------
    values
        (n_intervals + 1, l_max + 1, degree + 1, channels) coefficients of the powers of the position
        within the interval, from 0 to 1; channels beyond n_max are zero. The last interval is for
        distances that are rounded up to the radius.
    at_centre
        (channels,) R_n0 at r = 0, the contribution of the centre atom.
    radius
        End of the last interval: neighbours beyond it do not count, Å.
    """

    values: NDArray[np.float64]
    at_centre: NDArray[np.float64]
    radius: float

    @property
    def degree(self) -> int:
        """Degree of the polynomials."""
        return int(self.values.shape[2]) - 1

    @property
    def inverse_spacing(self) -> float:
        """Intervals per Å."""
        return (len(self.values) - 1) / self.radius

    def __call__(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n, l_max + 1, channels) at distances (n,) in Å, as the kernels compute them."""
        place = np.asarray(r) * self.inverse_spacing
        interval = np.minimum(place.astype(int), len(self.values) - 1)
        powers = (place - interval)[:, None] ** np.arange(self.degree + 1)
        values: NDArray[np.float64] = np.einsum("ip,ilpn->iln", powers, self.values[interval])
        return values


@lru_cache(maxsize=32)
def radial_table(
    r_cut: float, n_max: int, l_max: int, sigma: float, accuracy: RadialAccuracy
) -> RadialTable:
    """Table with the fewest intervals that give the accuracy.

    In each interval, the polynomial interpolates the values at the Chebyshev nodes. The number of
    intervals is doubled until the error between the nodes is small enough. The values are computed
    in long double from the float64 basis, and rounded to float64.

    Raises
    ------
    ValueError
        The radial functions are linearly dependent, or too steep for the largest table.
    """
    degree, tolerance = _ACCURACY[accuracy]
    radius = neighbour_radius(r_cut, sigma)
    basis = [gto_basis(r_cut, n_max, l) for l in range(l_max + 1)]
    x = np.cos(np.pi * (np.arange(degree + 1, dtype=LongDouble) + 0.5) / (degree + 1))
    to_powers = _inverse(((x[:, None] + 1) / 2) ** np.arange(degree + 1))
    between = np.linspace(0, 1, 4 * degree + 1, dtype=LongDouble)

    n_intervals = 64
    while n_intervals <= _MAX_INTERVALS:
        spacing = LongDouble(radius) / n_intervals
        starts = np.arange(n_intervals)[:, None]
        nodes = overlaps((starts + (x + 1) / 2) * spacing, basis, sigma)
        coefficients = np.einsum("pk,ikln->ilpn", to_powers, nodes)
        values = np.zeros((n_intervals + 1, l_max + 1, degree + 1, padded_channels(n_max)))
        values[:-1, ..., :n_max] = coefficients
        values[-1, :, 0] = values[-2].sum(axis=1)
        at_centre = np.zeros(values.shape[-1])
        at_centre[:n_max] = overlaps(np.zeros((), LongDouble), basis, sigma)[0]
        exact = overlaps((starts + between) * spacing, basis, sigma)
        powers = between[:, None] ** np.arange(degree + 1)
        error = np.abs(np.einsum("kp,ilpn->ikln", powers, coefficients) - exact)
        largest = np.abs(exact).max(axis=(0, 1, 3))
        if (error.max(axis=(0, 1, 3)) <= tolerance * largest).all():
            return RadialTable(values, at_centre, radius)
        n_intervals *= 2
    raise ValueError(
        f"r_cut: {_MAX_INTERVALS} intervals do not resolve the radial functions within {r_cut} Å; "
        "lower r_cut"
    )


def overlaps(r: Array, basis: Sequence[tuple[Array, Array]], sigma: float) -> Array:
    """R_nl at distances of any shape, Å; the result has two additional dimensions, l and n.

    The equation is that of :func:`mlip_assets.descriptors.reference.expand_density`.
    """
    eta = 1 / (2 * LongDouble(sigma) ** 2)
    pi = LongDouble("3.14159265358979323846264338327950288")
    columns = []
    for l, (alpha, beta) in enumerate(basis):
        both = alpha + eta
        amplitude = (pi / both) ** LongDouble(1.5) * (eta / both) ** l
        decay = np.exp(-(alpha * eta / both) * r[..., None] ** 2)
        columns.append(r[..., None] ** l * ((amplitude * decay) @ beta.T.astype(LongDouble)))
    return np.stack(columns, axis=-2)


def _inverse(matrix: Array) -> Array:
    """Inverse in long double, which LAPACK does not support: Gauss-Jordan with pivoting."""
    n = len(matrix)
    work = np.concatenate([matrix, np.eye(n, dtype=matrix.dtype)], axis=1)
    for k in range(n):
        pivot = k + int(np.abs(work[k:, k]).argmax())
        work[[k, pivot]] = work[[pivot, k]]
        work[k] /= work[k, k]
        for other in range(n):
            if other != k:
                work[other] -= work[other, k] * work[k]
    return work[:, n:]
