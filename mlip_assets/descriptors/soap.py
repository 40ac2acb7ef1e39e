"""The SOAP power spectrum of many frames at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import wrap_positions
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mlip_assets.descriptors.frames import (
    Average,
    check_settings,
    checked_frames,
    checked_species,
)


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
        coefficients, ``"outer"`` of the power spectra.
    dtype
        float32 or float64, of the result; everything is computed in float64.
    n_threads
        Workers the frames are shared among.

    Returns
    -------
    NDArray
        (n_frames, n_features), or (n_frames, n_atoms, n_features) with ``average="off"``.

    Raises
    ------
    ValueError
        Shapes that do not belong together, values that are not finite, an atom not in
        ``species``, a periodic cell without volume, or settings out of range.
    """
    xyz, lattice, periodic, z = checked_frames(positions, cells, pbc, numbers)
    kinds = checked_species(species, z)
    check_settings(r_cut, n_max, l_max, sigma, average, dtype, n_threads)
    shape = (len(z),) if average == "off" else ()
    features = np.empty(
        (len(xyz), *shape, n_soap_features(len(kinds), n_max, l_max)), dtype=np.dtype(dtype)
    )
    if len(xyz) == 0:
        return features

    from dscribe.descriptors import SOAP

    soap = SOAP(
        species=kinds,
        r_cut=r_cut,
        n_max=n_max,
        l_max=l_max,
        sigma=sigma,
        rbf="gto",
        average=average,
        periodic=True,  # each frame's own pbc decides
    )
    frames = [
        # dscribe is silently wrong for atoms several cells outside the box
        Atoms(z, wrap_positions(x, cell, axes, eps=0), cell=cell, pbc=axes)
        for x, cell, axes in zip(xyz, lattice, periodic, strict=True)
    ]
    features[...] = np.reshape(
        soap.create(frames, n_jobs=min(n_threads, len(frames))), features.shape
    )
    return features


def n_soap_features(n_species: int, n_max: int, l_max: int) -> int:
    """Length of one power spectrum: every unordered pair of (species, n) channels for every l."""
    channels = n_species * n_max
    return channels * (channels + 1) // 2 * (l_max + 1)
