"""What the plane-wave engines have in common: their settings, and the structure they compute."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from ase import Atoms

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling.engines.kpoints import RULE
from mlip_assets.labelling.engines.spin import Spin, with_spin
from mlip_assets.labelling.structure import boxed, is_isolated


@dataclass(frozen=True)
class PlaneWaveEngine:
    """Settings of a plane-wave program.

    Smearing is always on, because molecular dynamics meets frames without a gap, where fixed
    occupations converge to a wrong state without a warning.

    Attributes
    ----------
    k_spacing_per_A
        Largest distance between k-points along periodic directions, 2π included.
    smearing_eV
        Width of the Fermi-Dirac distribution.
    energy_convergence_eV
        What self-consistency means, in the measure of the program.
    charge
        Of the cell, in units of |e|, with a uniform background; free atoms are neutral.
    vacuum_A
        Empty space around the atoms along directions that are not periodic.
    max_iterations
        Steps to self-consistency in the first attempt; three times as many afterwards.
    memory_limit_GiB
        Most resident memory of one calculation; None for no limit.
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
        """The engine of a campaign, whose presets ``mlip_assets.campaign.load`` has filled in.

        Raises
        ------
        EngineError
            Data for an element is missing.
        ValueError
            A setting is left to the preset still.
        """
        return cls(**_shared(settings), **cls._own(settings, elements))

    @classmethod
    def _own(cls, settings: LabellingSettings, elements: Collection[str]) -> dict[str, Any]:  # noqa: ARG003
        """The fields that only this engine has."""
        return {}

    @property
    def physics(self) -> dict[str, Any]:
        """What decides the numbers, to within convergence."""
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
        """Vacuum along the directions that are not periodic, where plane waves need it, and spin."""
        return with_spin(boxed(atoms, self.vacuum_A), self.spin)

    def _charge_of(self, structure: Atoms) -> float:
        return 0.0 if is_isolated(structure) else self.charge

    def _max_iterations(self, attempt: int) -> int:
        return self.max_iterations if attempt == 0 else 3 * self.max_iterations


def _shared(settings: LabellingSettings) -> dict[str, Any]:
    names = [field.name for field in fields(PlaneWaveEngine) if hasattr(settings, field.name)]
    shared = {name: getattr(settings, name) for name in names}
    unset = [
        name
        for name in ("cutoff_eV", "k_spacing_per_A", "energy_convergence_eV")
        if shared[name] is None
    ]
    if unset:
        raise ValueError(
            f"labelling.{unset[0]} is not set; load the campaign, which fills in its preset, or "
            "give a value"
        )
    return shared
