"""Values of ``labelling.preset``; docs/labelling.md lists the measurements behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ase.units import Rydberg


@dataclass(frozen=True)
class _Preset:
    """Numerical settings of one engine.

    Attributes
    ----------
    cutoff_eV, soft_cutoff_eV
        Plane-wave cut-off in general, and if all elements are :data:`_SOFT`, eV.
    k_spacing_per_A
        Largest distance between k-points, 1/Å.
    energy_convergence_eV
        Self-consistency in energy, eV, by the criterion of the engine.
    """

    cutoff_eV: float
    soft_cutoff_eV: float
    k_spacing_per_A: float
    energy_convergence_eV: float


#: Elements whose valence states need only a low cut-off.
_SOFT = frozenset({"Si"})

_PRESETS = {
    "gpaw": {
        "fast": _Preset(500.0, 250.0, 0.45, 1e-5),
        "standard": _Preset(600.0, 350.0, 0.2, 1e-5),
        "strict": _Preset(800.0, 500.0, 0.15, 1e-6),
    },
    "espresso": {
        "fast": _Preset(90 * Rydberg, 36 * Rydberg, 0.45, 1e-7),
        "standard": _Preset(100 * Rydberg, 44 * Rydberg, 0.2, 1e-8),
        "strict": _Preset(120 * Rydberg, 60 * Rydberg, 0.15, 1e-9),
    },
    # usual values, not measured
    "vasp": {
        "fast": _Preset(400.0, 300.0, 0.45, 1e-6),
        "standard": _Preset(520.0, 400.0, 0.2, 1e-7),
        "strict": _Preset(700.0, 520.0, 0.15, 1e-8),
    },
}


def preset_values(engine: str, preset: str, elements: Sequence[str]) -> dict[str, float]:
    """``cutoff_eV``, ``k_spacing_per_A`` and ``energy_convergence_eV`` of a preset.

    Parameters
    ----------
    engine, preset
        As in the campaign.
    elements
        All elements of the campaign; the hardest determines the cut-off.
    """
    values = _PRESETS[engine][preset]
    return {
        "cutoff_eV": values.soft_cutoff_eV if _SOFT.issuperset(elements) else values.cutoff_eV,
        "k_spacing_per_A": values.k_spacing_per_A,
        "energy_convergence_eV": values.energy_convergence_eV,
    }
