"""Settings of all plane-wave engines, and the structures they compute."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from ase import Atoms

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling.engines.kpoints import RULE
from mlip_assets.labelling.engines.spin import Spin, with_spin
from mlip_assets.labelling.structure import is_isolated_atom, with_vacuum


@dataclass(frozen=True)
class PlaneWaveEngine:
    """Settings of a plane-wave program.

    Smearing is required: frames of molecular dynamics may have no gap, and fixed occupations then
    converge to a wrong state without a warning.

    Attributes
    ----------
    xc
        Exchange-correlation functional.
    cutoff_eV
        Plane-wave cut-off, eV.
    k_spacing_per_A
        Largest distance between k-points along periodic directions, 1/Å, 2π included.
    smearing_eV
        Width of the Fermi-Dirac distribution, eV.
    energy_convergence_eV
        Threshold of self-consistency, eV, as each program defines it.
    spin
        Which structures are spin-polarised; see :func:`~.spin.with_spin`.
    charge
        Charge of the cell in units of |e|, with a uniform background; isolated atoms are neutral.
    vacuum_A
        Empty space on both sides along directions that are not periodic, Å.
    max_net_force_eV_per_A
        Largest accepted norm of the sum of all forces, eV/Å.
    retries
        Number of further attempts after one that did not converge.
    timeout_s
        Longest time of one calculation, s.
    memory_limit_GiB
        Largest resident memory of one calculation, GiB; None for no limit.
    max_iterations
        Iterations to self-consistency in the first attempt; three times that number later.

    Raises
    ------
    ValueError
        ``smearing_eV`` is not positive.
    """

    xc: str
    cutoff_eV: float
    k_spacing_per_A: float
    smearing_eV: float
    energy_convergence_eV: float
    spin: Spin = "auto"
    charge: float = 0.0
    vacuum_A: float = 4.5
    max_net_force_eV_per_A: float = 0.05
    retries: int = 2
    timeout_s: float = 14_400.0
    memory_limit_GiB: float | None = None
    max_iterations: int = 100

    name: ClassVar[str]
    output: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.smearing_eV > 0:
            raise ValueError(
                f"smearing_eV = {self.smearing_eV:g}: fixed occupations converge to wrong states in "
                "frames of molecular dynamics; give a width above zero, such as 0.1"
            )

    @classmethod
    def from_settings(cls, settings: LabellingSettings, elements: Collection[str]) -> Self:
        """The engine of a campaign; ``mlip_assets.campaign.load`` fills in the values of its preset.

        Raises
        ------
        EngineError
            Data for an element is missing.
        ValueError
            A setting of the preset is not filled in.
        """
        return cls(**_common_fields(settings), **cls._further_fields(settings, elements))

    @classmethod
    def _further_fields(
        cls,
        settings: LabellingSettings,  # noqa: ARG003
        elements: Collection[str],  # noqa: ARG003
    ) -> dict[str, Any]:
        """The fields of the subclass."""
        return {}

    @property
    def physics(self) -> dict[str, Any]:
        """The settings on which converged labels depend."""
        return {
            "xc": self.xc,
            "cutoff_eV": self.cutoff_eV,
            "k_spacing_per_A": self.k_spacing_per_A,
            "k_points": RULE,
            "smearing": "Fermi-Dirac",
            "smearing_eV": self.smearing_eV,
            "energy_convergence_eV": self.energy_convergence_eV,
            "spin": self.spin,
            "charge": self.charge,
            "vacuum_A": self.vacuum_A,
        }

    def prepare(self, atoms: Atoms) -> Atoms:
        """Add vacuum along the directions that are not periodic, and initial magnetic moments."""
        return with_spin(with_vacuum(atoms, self.vacuum_A), self.spin)

    def _charge_of(self, structure: Atoms) -> float:
        return 0.0 if is_isolated_atom(structure) else self.charge

    def _max_iterations(self, attempt: int) -> int:
        return self.max_iterations if attempt == 0 else 3 * self.max_iterations


def _common_fields(settings: LabellingSettings) -> dict[str, Any]:
    names = [field.name for field in fields(PlaneWaveEngine) if hasattr(settings, field.name)]
    values = {name: getattr(settings, name) for name in names}
    unset = [
        name
        for name in ("cutoff_eV", "k_spacing_per_A", "energy_convergence_eV")
        if values[name] is None
    ]
    if unset:
        raise ValueError(
            f"labelling.{unset[0]} is not set; load the campaign with mlip_assets.campaign.load, which "
            "fills in the preset, or give a value"
        )
    return values
