"""Reference implementation of the SOAP power spectrum: slow, and close to the equations.

The density of the atoms i of one species around a centre has the expansion

    ρ(r) = Σ_i exp(-|r - r_i|² / 2σ²),    c_nlm = ∫ g_nl(r) Y_lm(r̂) ρ(r) d³r

(Bartók, Kondor and Csányi, Phys. Rev. B 87, 184115 (2013)). The radial functions g_nl and the
normalisation of the power spectrum are those of Himanen et al., Comput. Phys. Commun. 247, 106949
(2020), section on SOAP, as dscribe 2.1.2 computes them without compression. Other implementations
share only the checks of the input and the radial basis with this one.

Precision: sums over radial functions cancel. In float64, a spectrum with ``n_max`` 10 therefore has
a relative error of 2 to 5 · 10⁻¹². Here the expansion coefficients and the power spectra are computed
in NumPy's ``longdouble``, which has a mantissa of 64 bits on x86-64. Neighbour vectors, the radial
basis α and β (:func:`gto_basis`) and constant factors are float64. The result is rounded to
``dtype``.
"""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import factorial, pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mlip_assets.descriptors.frames import (
    Average,
    check_settings,
    checked_frames,
    checked_species,
    n_soap_features,
)

Array = NDArray[np.floating[Any]]
LongDouble = np.longdouble

#: Radial functions and atomic Gaussians are neglected below this fraction of their maximum.
_DECAYED = 1e-3


def soap_power_spectrum(
    positions: ArrayLike,
    cells: ArrayLike,
    pbc: ArrayLike,
    numbers: ArrayLike,
    *,
    species: Sequence[str | int],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float,
    average: Average = "outer",
    dtype: DTypeLike = np.float64,
    n_threads: int = 1,
) -> NDArray[np.floating[Any]]:
    """SOAP power spectra to validate :func:`mlip_assets.descriptors.soap.soap_power_spectrum`.

    Parameters
    ----------
    positions, cells, pbc, numbers, species, r_cut, n_max, l_max, sigma, average, dtype
        Those of that function. ``dtype`` is the type of the result only; see the module on the
        precision of the computation.
    n_threads
        Checked, and otherwise ignored: there is one thread.

    Returns
    -------
    NDArray
        (n_frames, n_features), or (n_frames, n_atoms, n_features) with ``average="off"``.

    Raises
    ------
    ValueError
        Those of that function; also if the radial functions are linearly dependent in float64.
    """
    xyz, lattice, periodic, z = checked_frames(positions, cells, pbc, numbers)
    kinds = checked_species(species, z)
    check_settings(r_cut, n_max, l_max, sigma, average, dtype, n_threads)
    basis = [gto_basis(r_cut, n_max, l) for l in range(l_max + 1)]
    radius = neighbour_radius(r_cut, sigma)

    shape = (len(z),) if average == "off" else ()
    features = np.empty(
        (len(xyz), *shape, n_soap_features(len(kinds), n_max, l_max, average=average)),
        dtype=np.dtype(dtype),
    )
    for frame, (x, cell, axes) in enumerate(zip(xyz, lattice, periodic, strict=True)):
        c = [np.empty((len(z), len(kinds), n_max, 2 * l + 1), LongDouble) for l in range(l_max + 1)]
        for atom, centre in enumerate(x):
            owner, vectors = neighbours(centre, x, cell, axes, radius)
            vectors = vectors.astype(LongDouble)
            for kind, number in enumerate(kinds):
                expansion = expand_density(vectors[z[owner] == number], basis, sigma)
                for l, c_l in enumerate(expansion):
                    c[l][atom, kind] = c_l
        if average == "off":
            features[frame] = power_spectrum(c)
        elif average == "inner":
            features[frame] = power_spectrum([c_l.mean(axis=0) for c_l in c])
        elif average == "outer":
            features[frame] = power_spectrum(c).mean(axis=0)
        else:
            members = (z == np.array(kinds)[:, None]).astype(LongDouble)
            counts = np.maximum(members.sum(axis=1, keepdims=True), 1)
            features[frame] = (members / counts @ power_spectrum(c)).ravel()
    return features


def neighbour_radius(r_cut: float, sigma: float) -> float:
    """Radius of the neighbours, Å: beyond r_cut, the tail of a Gaussian still overlaps the sphere."""
    return r_cut + sigma * sqrt(-2 * np.log(_DECAYED))


def neighbours(
    centre: Array, positions: Array, cell: Array, periodic: NDArray[np.bool_], radius: float
) -> tuple[NDArray[np.intp], Array]:
    """All images of all atoms within a radius of a centre, including an atom at the centre.

    Parameters
    ----------
    centre, positions
        (3,) and (n_atoms, 3), anywhere along periodic directions; Å.
    cell
        (3, 3) with volume, rows are lattice vectors; Å.
    periodic
        (3,) directions along which the cell repeats.
    radius
        Å.

    Returns
    -------
    tuple
        Index of the atom of each image, (n_neighbours,), and vector from the centre to it,
        (n_neighbours, 3), Å.
    """
    to_fractions = np.linalg.inv(cell)
    plane_spacing = 1 / np.linalg.norm(to_fractions, axis=0)
    offset = positions - centre
    nearest = offset - np.where(periodic, np.round(offset @ to_fractions), 0.0) @ cell
    # `nearest` is within half a cell of the centre, so that images half a cell farther are needed
    reach = np.where(periodic, np.ceil(radius / plane_spacing + 0.5), 0).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    vectors = nearest[:, None] + images @ cell
    inside = (vectors**2).sum(axis=2) <= radius**2
    return np.nonzero(inside)[0], vectors[inside]


def gto_basis(r_cut: float, n_max: int, l: int) -> tuple[Array, Array]:
    """Radial functions g_nl(r) = Σ_k β_nk r^l exp(-α_k r²), orthonormal under ∫ · r² dr.

    The primitive k has decayed to 10⁻³ at the k-th of ``n_max`` equidistant radii from 1 Å to
    ``r_cut``. β = S^(-1/2) (Löwdin) with the overlaps

        S_jk = ∫ r^(2l+2) exp(-(α_j + α_k) r²) dr = Γ(l + 3/2) / 2 (α_j + α_k)^(-l - 3/2).

    Rounding errors of S are multiplied by its condition number: about 10⁹ for ``n_max`` 8, where
    power spectra are defined to about 10⁻¹⁰, and 10¹³ for 12, where they are defined to 10⁻⁶. S is
    computed in float64 as in dscribe, so that more digits than these can be compared.

    Returns
    -------
    tuple
        α, (n_max,), Å⁻², and β, (n_max, n_max); float64.

    Raises
    ------
    ValueError
        The condition number of S reaches the inverse of the float64 epsilon, 4.5 · 10¹⁵.
    """
    from scipy.linalg import inv, sqrtm  # type: ignore[import-untyped]
    from scipy.special import gamma  # type: ignore[import-untyped]

    decay_radii = np.linspace(1, r_cut, n_max)
    alpha = -np.log(_DECAYED / decay_radii**l) / decay_radii**2
    overlap = gamma(l + 1.5) / 2 * np.add.outer(alpha, alpha) ** (-l - 1.5)
    if np.linalg.cond(overlap) * np.finfo(np.float64).eps >= 1:
        raise ValueError(
            f"n_max: {n_max} radial functions within r_cut {r_cut} Å are linearly dependent for "
            f"l = {l}; lower n_max or raise r_cut"
        )
    return alpha, sqrtm(inv(overlap))


def solid_harmonics(vectors: Array, l: int) -> Array:
    """Real r^l Y_lm, orthonormal on the sphere, at (n, 3) vectors; shape (n, 2l + 1).

    Columns are m = 0, then the cosine and the sine for m = 1...l, without the Condon-Shortley
    phase. r^(l-m) times the m-th derivative of the Legendre polynomial at z/r comes from

        (l - m) Π_lm = (2l - 1) z Π_(l-1)m - (l + m - 1) r² Π_(l-2)m,    Π_mm = (2m - 1)!!,

    which is defined at r = 0.
    """
    x, y, z = vectors.T
    r2 = x**2 + y**2 + z**2
    columns = []
    for m in range(l + 1):
        below, legendre = np.zeros_like(z), np.full_like(z, prod(range(1, 2 * m, 2)))
        for k in range(m + 1, l + 1):
            above = ((2 * k - 1) * z * legendre - (k + m - 1) * r2 * below) / (k - m)
            below, legendre = legendre, above
        norm = sqrt((2 * l + 1) / (4 * pi) * factorial(l - m) / factorial(l + m))
        if m == 0:
            columns.append(norm * legendre)
        else:
            around_z = (x + 1j * y) ** m
            columns.append(sqrt(2) * norm * legendre * around_z.real)
            columns.append(sqrt(2) * norm * legendre * around_z.imag)
    return np.stack(columns, axis=1)


def expand_density(
    vectors: Array, basis: Sequence[tuple[Array, Array]], sigma: float
) -> list[Array]:
    """Coefficients c_nlm of the Gaussians of width ``sigma`` (Å) at (n, 3) vectors (Å).

    A Gaussian against a primitive of exponent α has, with η = 1/2σ², the overlap

        ∫ r^l exp(-α r²) Y_lm(r̂) exp(-η|r - r_i|²) d³r
            = (π/(α + η))^(3/2) (η/(α + η))^l exp(-αη/(α + η) r_i²) r_i^l Y_lm(r̂_i).

    ``basis`` contains α and β of :func:`gto_basis` for each l. The result contains one array
    (n_max, 2l + 1) for each l, with the columns of :func:`solid_harmonics`; long double.
    """
    eta = 1 / (2 * LongDouble(sigma) ** 2)
    r2 = (vectors**2).sum(axis=1)
    coefficients = []
    for l, (alpha, beta) in enumerate(basis):
        both = alpha + eta
        primitives = (
            (pi / both) ** 1.5 * (eta / both) ** l * np.exp(-np.outer(r2, alpha * eta / both))
        )
        coefficients.append(beta @ primitives.T @ solid_harmonics(vectors, l))
    return coefficients


def power_spectrum(c: Sequence[Array]) -> Array:
    """p_nn'l = π √(8/(2l + 1)) Σ_m c_nlm c'_n'lm for every unordered pair of channels.

    ``c`` contains one array (..., n_species, n_max, 2l + 1) for each l; the result is (...,
    n_features). The pair of species varies slowest, then l, then n, then n'. For a species with
    itself, only n' ≥ n is kept.
    """
    n_species, n_max = c[0].shape[-3:-1]
    rows, columns = np.triu_indices(n_max)
    blocks = []
    for first in range(n_species):
        for second in range(first, n_species):
            for l, c_l in enumerate(c):
                p = (
                    pi
                    * sqrt(8 / (2 * l + 1))
                    * np.einsum("...nm,...km->...nk", c_l[..., first, :, :], c_l[..., second, :, :])
                )
                blocks.append(
                    p[..., rows, columns] if first == second else p.reshape(*p.shape[:-2], -1)
                )
    return np.concatenate(blocks, axis=-1)
