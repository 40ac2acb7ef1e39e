"""The SOAP power spectrum of many frames at once."""

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
    Engine,
    RadialAccuracy,
    channel_pairs,
    check_choices,
    check_settings,
    checked_frames,
    checked_species,
    n_soap_features,
)

if TYPE_CHECKING:
    from mlip_assets.descriptors.kernel import Plan


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
    engine: Engine = "numba",
) -> NDArray[np.floating[Any]]:
    """SOAP power spectra with the spherical Gaussian-type radial basis.

    Definition, feature order and normalisation are those of dscribe's ``SOAP(rbf="gto")``
    (Himanen et al., Comput. Phys. Commun. 247, 106949 (2020); Bartók, Kondor and Csányi,
    Phys. Rev. B 87, 184115 (2013)). Atoms may lie anywhere along periodic directions.

    Parameters
    ----------
    positions
        (n_frames, n_atoms, 3) or, for one frame, (n_atoms, 3); Å.
    cells
        (n_frames, 3, 3), or (3, 3) for all frames; rows are lattice vectors, Å.
    pbc
        Periodicity: (n_frames, 3), or (3,) or one bool for all frames.
    numbers
        (n_atoms,) atomic numbers, the same in every frame.
    species
        Chemical symbols or atomic numbers that the features tell apart, in any order.
    r_cut
        Cut-off radius, Å; more than 1.
    n_max, l_max
        Number of radial functions; highest angular momentum, at most 20.
    sigma
        Width of the atomic Gaussians, Å.
    average
        Over the atoms of a frame: ``"off"`` no average, ``"inner"`` of the expansion
        coefficients, ``"outer"`` of the power spectra; ``"species"`` is one outer average for each
        species of the centre, one after the other in the order of atomic numbers.
    dtype
        float32 or float64, of the result and of the arithmetic; distances are float64 always.
    n_threads
        Threads that share the frames; the result does not depend on it.
    compression
        Which densities are multiplied: ``"off"`` those of every pair of species, ``"mu2"`` the sum
        of all species with itself, ``"mu1nu1"`` that of each species with the sum, ``"crossover"``
        that of each species with itself.
    radial_table
        The radial functions are interpolated so that the features are right to 10⁻⁸ of the
        largest, ``"standard"``, or 10⁻¹², ``"fine"``.
    engine
        ``"numba"``; ``"loops"``, the same kernel without explicit vectors, which is what runs on
        processors without them; ``"dscribe"``, which has no ``average="species"``.

    Returns
    -------
    NDArray
        (n_frames, n_features), or (n_frames, n_atoms, n_features) with ``average="off"``.

    Raises
    ------
    ValueError
        Shapes that do not belong together, values that are not finite, an atom not in
        ``species``, a periodic cell without volume, two atoms at one point, or settings out of
        range.
    """
    xyz, lattice, periodic, z = checked_frames(positions, cells, pbc, numbers)
    kinds = checked_species(species, z)
    check_settings(r_cut, n_max, l_max, sigma, average, dtype, n_threads)
    check_choices(compression, radial_table, engine)
    n_features = n_soap_features(len(kinds), n_max, l_max, compression=compression, average=average)
    shape = (len(xyz), len(z), n_features) if average == "off" else (len(xyz), n_features)
    if len(xyz) == 0:
        return np.empty(shape, dtype)
    if engine == "dscribe":
        if average == "species":
            raise ValueError("average: 'species' is not offered by dscribe; use engine 'numba'")
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
            periodic=True,  # each frame's own pbc decides
        )
        frames = [
            # dscribe is silently wrong for atoms several cells outside the box
            Atoms(z, wrap_positions(x, cell, axes, eps=0), cell=cell, pbc=axes)
            for x, cell, axes in zip(xyz, lattice, periodic, strict=True)
        ]
        spectra = soap.create(frames, n_jobs=min(n_threads, len(frames)))
    else:
        # compiling takes its time to import
        from mlip_assets.descriptors.kernel import power_spectra
        from mlip_assets.descriptors.lanes import vectors_are_supported
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
            vectors=engine == "numba" and vectors_are_supported(),
        )
    return np.reshape(spectra, shape).astype(dtype, copy=False)


def _plan(
    z: NDArray[np.int64], kinds: Sequence[int], average: Average, compression: Compression
) -> Plan:
    """Centres, the groups they are averaged in, and the densities multiplied."""
    from mlip_assets.descriptors.kernel import Plan

    kind = np.searchsorted(kinds, z)
    group = {"off": np.arange(len(z)), "species": kind}.get(average, np.zeros_like(kind))
    pairs = np.array(channel_pairs(len(kinds), compression))
    return Plan(
        kind=kind,
        n_species=len(kinds),
        order=np.argsort(group, kind="stable"),
        group=group,
        group_size=np.bincount(group, minlength=len(kinds) if average == "species" else 1),
        pairs=pairs,
        summed=bool(pairs.max() == len(kinds)),
        inner=average == "inner",
    )
