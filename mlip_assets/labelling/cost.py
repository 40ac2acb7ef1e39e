"""Expected cost of a calculation, estimated from finished ones with the same engine and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: Smallest number of timings for an estimate, and largest number used: the last ones.
MIN_TIMINGS, MAX_TIMINGS = 3, 500
_NOBLE = np.array([0, 2, 10, 18, 36, 54, 86])
#: Prior of the exponents of valence electrons, volume (plane waves) and k-points: orbitals times
#: plane waves times k-points; and its standard deviations.
_PRIOR_EXPONENTS = np.array([1.0, 1.0, 1.0])
_PRIOR_DEVIATIONS = np.array([0.5, 0.4, 0.2])
#: Standard deviation of the logarithm of the times of equal calculations: the number of iterations
#: differs, and machines are shared.
_SCATTER = 0.3


@dataclass(frozen=True)
class CostModel:
    """``wall_s = a · electrons^p · volume^q · k_points^r``, by ridge regression of the logarithms.

    Timings of different sizes determine the exponents; with timings of one size alone, the
    exponents stay near the prior, which is that of plane-wave codes.

    Attributes
    ----------
    log_a
        Logarithm of ``a``, with the wall time in s.
    exponents
        ``(3,)``: p, q and r.
    k_spacing_per_A
        Of the settings; None for an engine without k-points.
    n_timings
        Number of calculations in the fit.
    """

    log_a: float
    exponents: NDArray[np.float64]
    k_spacing_per_A: float | None
    n_timings: int

    @classmethod
    def fit(cls, timings: Sequence[tuple[Atoms, float]], physics: Mapping[str, Any]) -> Self | None:
        """Fit the model; None for fewer than ``MIN_TIMINGS`` timings.

        Parameters
        ----------
        timings
            Structures as computed, and the wall time of each, s.
        physics
            Of the engine; its ``k_spacing_per_A`` gives the number of k-points.
        """
        if len(timings) < MIN_TIMINGS:
            return None
        spacing = physics.get("k_spacing_per_A")
        sizes = np.array([_log_sizes(atoms, spacing) for atoms, _ in timings])
        log_s = np.log([max(wall_s, 1e-3) for _, wall_s in timings])
        # the intercept has no prior; the exponents have
        middle, centre = sizes.mean(axis=0), log_s.mean()
        residual = log_s - centre - (sizes - middle) @ _PRIOR_EXPONENTS
        precision = (sizes - middle).T @ (sizes - middle) / _SCATTER**2
        precision += np.diag(_PRIOR_DEVIATIONS**-2)
        correction = np.linalg.solve(precision, (sizes - middle).T @ residual / _SCATTER**2)
        exponents = _PRIOR_EXPONENTS + correction
        return cls(float(centre - middle @ exponents), exponents, spacing, len(timings))

    def core_hours(self, structure: Atoms) -> float:
        """Expected core-hours of one calculation on one core."""
        log_s = self.log_a + _log_sizes(structure, self.k_spacing_per_A) @ self.exponents
        return float(np.exp(log_s)) / 3600


def _log_sizes(structure: Atoms, k_spacing_per_A: float | None) -> NDArray[np.float64]:
    numbers = structure.numbers
    electrons = numbers - _NOBLE[np.searchsorted(_NOBLE, numbers) - 1]
    n_k = 1.0
    if k_spacing_per_A is not None:
        lengths_per_A = 2 * np.pi * structure.cell.reciprocal().lengths()
        n_points = np.maximum(np.ceil(lengths_per_A / k_spacing_per_A - 1e-9), 1)
        n_k = float(np.prod(n_points[structure.pbc]))
    return np.log([electrons.sum(), structure.cell.volume, n_k])
