"""Input of a SOAP calculation, checked once for all implementations: frames and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike, DTypeLike, NDArray

Average = Literal["off", "inner", "outer", "species"]
Compression = Literal["off", "mu2", "mu1nu1", "crossover"]
RadialAccuracy = Literal["standard", "fine"]
Implementation = Literal["numba", "scalar", "dscribe"]

#: A cell is flat if its volume, divided by the product of its edges, is at most this.
_MAX_FLATNESS = 1e-6

#: Beyond this coordinate, float64 has too few digits for distances; Å.
_MAX_COORDINATE = 1e7


def checked_frames(
    positions: ArrayLike, cells: ArrayLike, pbc: ArrayLike, numbers: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Positions, completed cells, pbc and numbers as arrays of full shape.

    Returns
    -------
    tuple
        (n_frames, n_atoms, 3) Å; (n_frames, 3, 3) Å, see :func:`_completed_cells`; (n_frames, 3);
        (n_atoms,).

    Raises
    ------
    ValueError
        Shapes that do not match, values that are not finite or too large, or a flat cell.
    """
    xyz = np.asarray(positions, dtype=np.float64)
    xyz = xyz[None] if xyz.ndim == 2 else xyz
    if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.shape[1] == 0:
        raise ValueError(
            f"positions: shape {np.shape(positions)}; need (n_frames, n_atoms, 3) with at least one atom"
        )
    z = np.asarray(numbers)
    if z.shape != xyz.shape[1:2] or z.dtype.kind not in "iu":
        raise ValueError(
            f"numbers: shape {z.shape} of {z.dtype}; need {xyz.shape[1]} integers, one for each "
            "atom in positions"
        )
    try:
        given = np.broadcast_to(np.asarray(cells, dtype=np.float64), (len(xyz), 3, 3))
        periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (len(xyz), 3))
    except ValueError as error:
        raise ValueError(
            f"cells: shape {np.shape(cells)}, pbc: shape {np.shape(pbc)}; for {len(xyz)} frames "
            f"need (3, 3) or ({len(xyz)}, 3, 3), and (3,) or ({len(xyz)}, 3)"
        ) from error
    for name, values in (("positions", xyz), ("cells", given)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
        if len(bad):
            raise ValueError(f"{name}: frame {bad[0]} contains NaN or infinite values")
        far = np.flatnonzero((np.abs(values) > _MAX_COORDINATE).any(axis=(1, 2)))
        if len(far):
            raise ValueError(f"{name}: frame {far[0]} has coordinates beyond {_MAX_COORDINATE:g} Å")
    lattice = _completed_cells(given, periodic)
    return xyz, lattice, periodic, z.astype(np.int64)


def _completed_cells(
    given: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Cells in which unit normals replace the non-periodic vectors.

    The periodic vectors must be linearly independent.
    """
    full = np.where(periodic[..., None], given, 0.0)
    for pattern in np.unique(periodic, axis=0):
        members = np.flatnonzero((periodic == pattern).all(axis=1))
        vectors = full[members][:, pattern]
        if pattern.any():
            # singular values of the normalised vectors
            lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
            directions = vectors / np.where(lengths > 0, lengths, 1.0)
            extent = np.linalg.svd(directions, compute_uv=False).prod(axis=1)
            flat = members[extent <= _MAX_FLATNESS]
            if len(flat):
                raise ValueError(
                    f"cells: the periodic vectors of frame {flat[0]} span no volume: "
                    f"{full[flat[0]][pattern].tolist()}"
                )
        # the last right singular vectors are normal to all periodic vectors
        normals = np.linalg.svd(full[members])[2][:, pattern.sum() :]
        full[np.ix_(members, ~pattern)] = normals
    return full


def checked_species(species: Sequence[str | int], z: NDArray[np.int64]) -> list[int]:
    """Sorted, distinct atomic numbers of ``species``.

    Raises
    ------
    ValueError
        ``species`` is empty or not of elements, or an atom in ``z`` is not among them.
    """
    allowed = {atomic_numbers.get(s, 0) if isinstance(s, str) else int(s) for s in species}
    if not allowed or min(allowed) < 1 or max(allowed) >= len(chemical_symbols):
        raise ValueError(f"species: {list(species)} must name one or more chemical elements")
    foreign = sorted(set(z.tolist()) - allowed)
    if foreign:
        raise ValueError(
            f"numbers: {foreign} are not among the species "
            f"{[chemical_symbols[number] for number in sorted(allowed)]}"
        )
    return sorted(allowed)


def check_settings(
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float,
    average: str,
    dtype: DTypeLike,
    n_threads: int,
) -> None:
    """Raise ValueError for the first setting that is out of range."""
    checks = (
        ("r_cut", r_cut, np.isfinite(r_cut) and r_cut > 1, "a radius of more than 1 Å"),
        ("n_max", n_max, n_max >= 1, "at least 1"),
        ("l_max", l_max, 0 <= l_max <= 20, "from 0 to 20"),
        ("sigma", sigma, np.isfinite(sigma) and sigma > 0, "a width of more than 0 Å"),
        ("average", average, average in get_args(Average), f"one of {get_args(Average)}"),
        ("dtype", dtype, np.dtype(dtype) in {np.dtype("f4"), np.dtype("f8")}, "float32 or float64"),
        ("n_threads", n_threads, n_threads >= 1, "at least 1"),
    )
    for name, value, good, wanted in checks:
        if not good:
            raise ValueError(f"{name}: {value!r}; need {wanted}")


def check_choices(compression: str, radial_table: str, implementation: str) -> None:
    """Raise ValueError for the first choice that does not exist."""
    for name, value, choices in (
        ("compression", compression, get_args(Compression)),
        ("radial_table", radial_table, get_args(RadialAccuracy)),
        ("implementation", implementation, get_args(Implementation)),
    ):
        if value not in choices:
            raise ValueError(f"{name}: {value!r}; need one of {choices}")


def channel_pairs(n_species: int, compression: Compression = "off") -> list[tuple[int, int]]:
    """Pairs of densities that are multiplied; index ``n_species`` is the sum of all species.

    The compressions are those of Darby, Kermode and Csányi, npj Comput. Mater. 8, 166 (2022).
    """
    each = range(n_species)
    if compression == "off":
        return [(one, other) for one in each for other in range(one, n_species)]
    if compression == "crossover":
        return [(one, one) for one in each]
    if compression == "mu1nu1":
        return [(one, n_species) for one in each]
    return [(n_species, n_species)]


def n_soap_features(
    n_species: int,
    n_max: int,
    l_max: int,
    *,
    compression: Compression = "off",
    average: Average = "outer",
) -> int:
    """Number of features of one power spectrum.

    Each unordered pair of (species, n) channels gives one feature for each l.
    """
    each = sum(
        n_max * (n_max + 1) // 2 if one == other else n_max**2
        for one, other in channel_pairs(n_species, compression)
    )
    return each * (l_max + 1) * (n_species if average == "species" else 1)
