"""GPAW: the projector-augmented-wave method with plane waves.

J. J. Mortensen et al., J. Chem. Phys. 160, 092503 (2024).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from ase import Atoms

from mlip_assets.labelling.engines.engine import Calculation, EngineError, NotConvergedError
from mlip_assets.labelling.engines.kpoints import k_points
from mlip_assets.labelling.engines.plane_waves import PlaneWaveEngine
from mlip_assets.labelling.structure import is_isolated_atom

INSTALL = "install the extra with a C++ compiler: CC=g++ pip install 'mlip-autopipe[gpaw]'"
#: Numerical settings by attempt. GPAW's defaults are atomic orbitals as initial wave functions,
#: density mixing of 0.05 and the Davidson method. Later attempts have a smaller mixing, against
#: charge sloshing, then another diagonalisation, then random initial wave functions.
_ATTEMPTS: tuple[dict[str, Any], ...] = (
    {},
    {"mixer": {"backend": "pulay", "beta": 0.02, "nmaxold": 8, "weight": 100}},
    {
        "mixer": {"backend": "pulay", "beta": 0.01, "nmaxold": 8, "weight": 100},
        "eigensolver": {"name": "rmm-diis"},
    },
    {
        "mixer": {"backend": "pulay", "beta": 0.01, "nmaxold": 8, "weight": 100},
        "random": True,
    },
)


@dataclass(frozen=True)
class GpawEngine(PlaneWaveEngine):
    """Plane-wave GPAW.

    The total moment of an isolated atom is fixed at its initial value, so that the state does not
    change. ``energy_convergence_eV`` is the change of the energy per valence electron.
    """

    name: ClassVar[str] = "gpaw"
    output: ClassVar[str] = "gpaw.txt"

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` if GPAW or its PAW data for an element is missing."""
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

    def numerics(self, attempt: int) -> dict[str, Any]:
        """Parameters of ``gpaw.GPAW``."""
        settings = _ATTEMPTS[min(attempt, len(_ATTEMPTS) - 1)]
        return {"maxiter": self._max_iterations(attempt), **settings}

    def program(self) -> str:
        """GPAW and its version."""
        try:
            return f"gpaw {version('gpaw')}"
        except PackageNotFoundError:
            return "gpaw"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Free energy, forces and, if fully periodic, stress."""
        from gpaw import GPAW, PW, ConvergenceError

        numerics = self.numerics(attempt)
        atoms = structure.copy()
        atoms.calc = GPAW(
            mode=PW(self.cutoff_eV),
            xc=self.xc,
            kpts=k_points(structure, self.k_spacing_per_A).tolist(),
            occupations=self._occupations(structure),
            convergence={"energy": self.energy_convergence_eV},
            charge=self._charge_of(structure),
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

    def _occupations(self, structure: Atoms) -> dict[str, Any]:
        polarised = structure.get_initial_magnetic_moments().any()
        fixed = {"fixmagmom": True} if is_isolated_atom(structure) and polarised else {}
        return {"name": "fermi-dirac", "width": self.smearing_eV, **fixed}
