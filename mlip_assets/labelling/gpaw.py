"""GPAW: the projector-augmented-wave method with plane waves.

J. J. Mortensen et al., J. Chem. Phys. 160, 092503 (2024).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from ase import Atoms
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import NDArray

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling.engines import Calculation, EngineError, NotConvergedError
from mlip_assets.labelling.structure import boxed, is_isolated

INSTALL = "install the extra with a C++ compiler: CC=g++ pip install 'mlip-autopipe[gpaw]'"
#: Density mixing of the further attempts (GPAW starts with 0.05): slower, so charge sloshes less.
_SAFER_MIXING = (0.02, 0.01, 0.005)


@dataclass(frozen=True)
class GpawEngine:
    """Plane-wave GPAW.

    Smearing is always on, because molecular dynamics meets frames without a gap. Spin is polarised
    where the atoms have initial magnetic moments. The moment of a lone atom is held at its initial
    value, so that it stays in the state asked for.

    Attributes
    ----------
    vacuum_A
        Empty space around the atoms along directions that are not periodic.
    max_iterations
        Steps to self-consistency in the first attempt; three times as many afterwards.
    """

    xc: str
    cutoff_eV: float
    k_spacing_per_A: float
    smearing_eV: float
    energy_convergence_eV: float
    vacuum_A: float = 4.5
    max_net_force_eV_per_A: float = 0.05
    retries: int = 1
    timeout_s: float = 1800.0
    max_iterations: int = 100

    name: ClassVar[str] = "gpaw"
    output: ClassVar[str] = "gpaw.txt"

    @classmethod
    def from_settings(cls, settings: LabellingSettings) -> Self:
        """The engine of a campaign, whose cut-off ``mlip_assets.campaign.load`` has filled in."""
        if settings.cutoff_eV is None:
            raise ValueError("labelling.cutoff_eV is not set; load the campaign, or give a cut-off")
        fields = settings.model_dump(exclude={"engine", "budget"})
        return cls(**fields)

    @property
    def physics(self) -> dict[str, Any]:
        """What decides the numbers, to within convergence."""
        return {
            "xc": self.xc,
            "cutoff_eV": self.cutoff_eV,
            "k_spacing_per_A": self.k_spacing_per_A,
            "k_points": "Monkhorst-Pack, half a step off Γ",
            "smearing": "Fermi-Dirac",
            "smearing_eV": self.smearing_eV,
            "energy_convergence_eV": self.energy_convergence_eV,
            "vacuum_A": self.vacuum_A,
        }

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` unless GPAW and its PAW data for all elements are here."""
        try:
            from gpaw.setup_data import search_for_file
        except ImportError as error:
            raise EngineError(f"GPAW is not installed ({error}); {INSTALL}") from error
        missing = []
        for symbol in sorted(symbols):
            try:
                search_for_file(f"{symbol}.{self.xc}")
            except FileNotFoundError:
                missing.append(symbol)
        if missing:
            raise EngineError(
                f"GPAW has no {self.xc} PAW data for {', '.join(missing)}; choose another "
                "composition or functional, or put the data in a folder named by GPAW_SETUP_PATH"
            )

    def prepare(self, atoms: Atoms) -> Atoms:
        """Vacuum along the directions that are not periodic, where plane waves need it."""
        return boxed(atoms, self.vacuum_A)

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Free energy, forces and, when fully periodic, stress."""
        from gpaw import GPAW, PW, ConvergenceError

        numerics = self._numerics(attempt)
        atoms = structure.copy()
        atoms.calc = GPAW(
            mode=PW(self.cutoff_eV),
            xc=self.xc,
            kpts=self._k_points(structure).tolist(),
            occupations=self._occupations(structure),
            convergence={"energy": self.energy_convergence_eV},
            txt=self.output,
            **numerics,
        )
        try:
            energy_eV = atoms.get_potential_energy(force_consistent=True)
        except ConvergenceError as error:
            steps = numerics["maxiter"]
            raise NotConvergedError(f"no self-consistency in {steps} iterations") from error
        return Calculation(
            energy_eV=float(energy_eV),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(voigt=False) if atoms.pbc.all() else None,
        )

    def _k_points(self, structure: Atoms) -> NDArray[np.float64]:
        """Fewest points within the spacing; off Γ along every direction that has more than one.

        Off Γ, k and -k always pair up, whatever the atoms do, so half of the points are enough. Even
        grids through Γ need nearly all; odd ones as many, for a larger error in the forces.
        """
        reciprocal_per_A = 2 * np.pi * structure.cell.reciprocal().lengths()
        needed = np.ceil(reciprocal_per_A / self.k_spacing_per_A - 1e-9).astype(int)
        size = np.where(structure.pbc, np.maximum(needed, 1), 1)
        through_gamma = (size % 2 == 1) & (size > 1)  # Monkhorst-Pack's odd grids hold Γ
        points: NDArray[np.float64] = monkhorst_pack(size) + np.where(through_gamma, 0.5 / size, 0)
        return points

    def _occupations(self, structure: Atoms) -> dict[str, Any]:
        polarised = structure.get_initial_magnetic_moments().any()
        held = {"fixmagmom": True} if is_isolated(structure) and polarised else {}
        return {"name": "fermi-dirac", "width": self.smearing_eV, **held}

    def _numerics(self, attempt: int) -> dict[str, Any]:
        if attempt == 0:
            return {"maxiter": self.max_iterations}
        beta = _SAFER_MIXING[min(attempt, len(_SAFER_MIXING)) - 1]
        mixer = {"backend": "pulay", "beta": beta, "nmaxold": 8, "weight": 100}
        return {"maxiter": 3 * self.max_iterations, "mixer": mixer}
