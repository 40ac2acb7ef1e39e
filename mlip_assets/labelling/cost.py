"""What a calculation will cost, from what others with the same engine and settings have taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: Calculations the estimate rests on, the last ones; fewer than the first are no ground for one.
MIN_TIMINGS, MAX_TIMINGS = 3, 500
_NOBLE = np.array([0, 2, 10, 18, 36, 54, 86])
#: Exponents of valence electrons, volume (plane waves) and k-points, and how sure they are before
#: anything is measured: orbitals times plane waves times k-points.
_EXPONENTS = np.array([1.0, 1.0, 1.0])
_UNSURE = np.array([0.5, 0.4, 0.2])
#: Scatter of the logarithm of equal calculations' times: iterations differ, machines are shared.
_SCATTER = 0.3


@dataclass(frozen=True)
class CostModel:
    """``wall_s = a · electrons^p · volume^q · k_points^r`` by regularised least squares on logarithms.

    Measured sizes decide the exponents as far as they differ; where they are all alike, the
    exponents stay near those of plane-wave codes.

    Attributes
    ----------
    log_a, exponents
        The model.
    k_spacing_per_A
        Of the settings; None for an engine without k-points.
    n_timings
        Calculations it rests on.
    """

    log_a: float
    exponents: NDArray[np.float64]
    k_spacing_per_A: float | None
    n_timings: int

    @classmethod
    def fit(cls, timings: Sequence[tuple[Atoms, float]], physics: Mapping[str, Any]) -> Self | None:
        """The model of structures as computed and seconds each took; None for too few.

        Parameters
        ----------
        timings
            Structure and wall time, s.
        physics
            The engine's; ``k_spacing_per_A`` in it tells how many k-points there are.
        """
        if len(timings) < MIN_TIMINGS:
            return None
        spacing = physics.get("k_spacing_per_A")
        sizes = np.array([_log_sizes(atoms, spacing) for atoms, _ in timings])
        log_s = np.log([max(wall_s, 1e-3) for _, wall_s in timings])
        # the intercept is free; the exponents are drawn to what is usual
        middle, centre = sizes.mean(axis=0), log_s.mean()
        residual = log_s - centre - (sizes - middle) @ _EXPONENTS
        precision = (sizes - middle).T @ (sizes - middle) / _SCATTER**2 + np.diag(_UNSURE**-2)
        correction = np.linalg.solve(precision, (sizes - middle).T @ residual / _SCATTER**2)
        exponents = _EXPONENTS + correction
        return cls(float(centre - middle @ exponents), exponents, spacing, len(timings))

    def core_hours(self, structure: Atoms) -> float:
        """Expected for one calculation on one core."""
        log_s = self.log_a + _log_sizes(structure, self.k_spacing_per_A) @ self.exponents
        return float(np.exp(log_s)) / 3600


def _log_sizes(structure: Atoms, k_spacing_per_A: float | None) -> NDArray[np.float64]:
    numbers = structure.numbers
    electrons = numbers - _NOBLE[np.searchsorted(_NOBLE, numbers) - 1]
    n_k = 1.0
    if k_spacing_per_A is not None:
        lengths_per_A = 2 * np.pi * structure.cell.reciprocal().lengths()
        along = np.maximum(np.ceil(lengths_per_A / k_spacing_per_A - 1e-9), 1)
        n_k = float(np.prod(along[structure.pbc]))
    return np.log([electrons.sum(), structure.cell.volume, n_k])
