"""SOAP power spectra of many frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.geometry import wrap_positions
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mlip_assets.descriptors.frames import (
    Average,
    Compression,
    Implementation,
    RadialAccuracy,
    channel_pairs,
    check_choices,
    check_settings,
    checked_frames,
    checked_species,
    n_soap_features,
)

if TYPE_CHECKING:
    from mlip_assets.descriptors.kernels.power_spectra import Plan


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
    compression: Compression = "off",
    radial_table: RadialAccuracy = "standard",
    implementation: Implementation = "numba",
) -> NDArray[np.floating[Any]]:
    """SOAP power spectra with the spherical Gaussian-type radial basis.

    The definition, the order of the features and the normalisation are those of dscribe's
    ``SOAP(rbf="gto")`` [1]_ [2]_. Atoms may be anywhere along periodic directions.

    Parameters
    ----------
    positions : array_like
        (n_frames, n_atoms, 3) or, for one frame, (n_atoms, 3); Å.
    cells : array_like
        (n_frames, 3, 3), or (3, 3) for all frames; rows are lattice vectors, Å.
    pbc : array_like of bool
        Periodicity: (n_frames, 3), or (3,) or one bool for all frames.
    numbers : array_like of int
        (n_atoms,) atomic numbers, the same in every frame.
    species : sequence of str or int
        Chemical symbols or atomic numbers that the features distinguish, in any order.
    r_cut : float
        Cut-off radius, Å; more than 1.
    n_max, l_max : int
        Number of radial functions; largest angular momentum, at most 20.
    sigma : float
        Standard deviation of the atomic Gaussians, Å.
    average : {"outer", "species", "inner", "off"}
        Average over the atoms of a frame. ``"outer"``: of the power spectra. ``"species"``: an outer
        average for each species of the centre, concatenated in the order of atomic numbers.
        ``"inner"``: of the expansion coefficients. ``"off"``: no average.
    dtype : dtype
        float32 or float64, of the arithmetic and of the result. Distances are always float64.
    n_threads : int
        Threads over which the frames are distributed. The result does not depend on it.
    compression : {"off", "mu2", "mu1nu1", "crossover"}
        Densities that are multiplied [3]_. ``"off"``: every pair of species. ``"mu2"``: the sum of
        all species with itself. ``"mu1nu1"``: each species with the sum. ``"crossover"``: each
        species with itself.
    radial_table : {"standard", "fine"}
        Accuracy of the interpolated radial functions. The largest error of a feature is 10⁻⁸ of the
        largest feature with ``"standard"``, and 10⁻¹² with ``"fine"``.
    implementation : {"numba", "scalar", "dscribe"}
        ``"numba"``: the compiled kernel. ``"scalar"``: the same kernel without explicit vector
        registers, which is also used on processors without fused vector instructions.
        ``"dscribe"``: that package, to validate the others; without ``average="species"``.

    Returns
    -------
    NDArray
        (n_frames, n_features), or (n_frames, n_atoms, n_features) with ``average="off"``; of
        ``dtype``, dimensionless. :func:`~mlip_assets.descriptors.n_soap_features` gives n_features.

    Raises
    ------
    ValueError
        Shapes that do not match, values that are not finite, an atom that is not in ``species``, a
        periodic cell without volume, two atoms at one point, or settings out of range.

    References
    ----------
    .. [1] L. Himanen et al., Comput. Phys. Commun. 247, 106949 (2020).
    .. [2] A. P. Bartók, R. Kondor and G. Csányi, Phys. Rev. B 87, 184115 (2013).
    .. [3] J. P. Darby, J. R. Kermode and G. Csányi, npj Comput. Mater. 8, 166 (2022).

    Examples
    --------
    >>> from ase.build import bulk
    >>> from mlip_assets import soap_power_spectrum
    >>> silicon = bulk("Si", cubic=True)
    >>> features = soap_power_spectrum(
    ...     silicon.positions,
    ...     silicon.cell.array,
    ...     silicon.pbc,
    ...     silicon.numbers,
    ...     species=["Si"],
    ...     r_cut=4.0,
    ...     n_max=4,
    ...     l_max=3,
    ...     sigma=0.5,
    ... )
    >>> features.shape, features.dtype
    ((1, 40), dtype('float64'))
    """
    xyz, lattice, periodic, z = checked_frames(positions, cells, pbc, numbers)
    kinds = checked_species(species, z)
    check_settings(r_cut, n_max, l_max, sigma, average, dtype, n_threads)
    check_choices(compression, radial_table, implementation)
    n_features = n_soap_features(len(kinds), n_max, l_max, compression=compression, average=average)
    shape = (len(xyz), len(z), n_features) if average == "off" else (len(xyz), n_features)
    if len(xyz) == 0:
        return np.empty(shape, dtype)
    if implementation == "dscribe":
        if average == "species":
            raise ValueError(
                "average: 'species' is not supported by dscribe; use implementation 'numba'"
            )
        from dscribe.descriptors import SOAP

        soap = SOAP(
            species=kinds,
            r_cut=r_cut,
            n_max=n_max,
            l_max=l_max,
            sigma=sigma,
            rbf="gto",
            average=average,
            compression={"mode": compression},
            periodic=True,  # the pbc of each Atoms object decides
        )
        frames = [
            # dscribe is wrong, without an error, for atoms several cells outside the box
            Atoms(z, wrap_positions(x, cell, axes, eps=0), cell=cell, pbc=axes)
            for x, cell, axes in zip(xyz, lattice, periodic, strict=True)
        ]
        spectra = soap.create(frames, n_jobs=min(n_threads, len(frames)))
    else:
        # imported here, because Numba is slow to import
        from mlip_assets.descriptors.kernels.llvm_vectors import vectors_are_supported
        from mlip_assets.descriptors.kernels.power_spectra import power_spectra
        from mlip_assets.descriptors.radial import radial_table as table_of

        spectra = power_spectra(
            xyz,
            lattice,
            periodic,
            _plan(z, kinds, average, compression),
            table_of(r_cut, n_max, l_max, sigma, radial_table),
            n_max,
            l_max,
            dtype=np.dtype(dtype),
            n_threads=n_threads,
            use_simd=implementation == "numba" and vectors_are_supported(),
        )
    return np.reshape(spectra, shape).astype(dtype, copy=False)


def _plan(
    z: NDArray[np.int64], kinds: Sequence[int], average: Average, compression: Compression
) -> Plan:
    """Centres, the groups in which they are averaged, and the densities that are multiplied."""
    from mlip_assets.descriptors.kernels.power_spectra import Plan

    kind = np.searchsorted(kinds, z)
    group = {"off": np.arange(len(z)), "species": kind}.get(average, np.zeros_like(kind))
    pairs = np.array(channel_pairs(len(kinds), compression))
    return Plan(
        species=kind,
        n_species=len(kinds),
        order=np.argsort(group, kind="stable"),
        group=group,
        group_size=np.bincount(group, minlength=len(kinds) if average == "species" else 1),
        pairs=pairs,
        needs_sum=bool(pairs.max() == len(kinds)),
        averages_coefficients=average == "inner",
    )
