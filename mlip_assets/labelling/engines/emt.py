"""ASE's effective-medium theory: as fast as DFT is slow. A stand-in for tests; no campaign has it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

from ase import Atoms

from mlip_assets.labelling.engines.engine import Calculation, EngineError
from mlip_assets.labelling.structure import boxed


@dataclass(frozen=True)
class EmtEngine:
    """Ni, Cu, Pd, Ag, Pt, Au and Al, roughly H, C, N and O; nothing that resembles DFT.

    K. W. Jacobsen, P. Stoltze and J. K. Nørskov, Surf. Sci. 366, 394 (1996).
    """

    retries: int = 1
    timeout_s: float = 60.0
    memory_limit_GiB: float | None = None
    max_net_force_eV_per_A: float = 0.05

    name: ClassVar[str] = "emt"
    output: ClassVar[str] = "emt.txt"

    @property
    def physics(self) -> dict[str, Any]:
        """There is nothing to set."""
        return {"model": "EMT as in ASE"}

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` for an element without parameters."""
        from ase.calculators.emt import parameters

        missing = sorted(set(symbols) - set(parameters))
        if missing:
            raise EngineError(f"EMT has no parameters for {', '.join(missing)}")

    def prepare(self, atoms: Atoms) -> Atoms:
        """Empty space along the directions that are not periodic."""
        return boxed(atoms, 5.0)

    def numerics(self, attempt: int) -> dict[str, Any]:
        """Nothing has to converge."""
        return {"attempt": attempt}

    def program(self) -> str:
        """ASE's version."""
        return f"ase {version('ase')}"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:  # noqa: ARG002
        """Energy, forces and, when fully periodic, stress."""
        from ase.calculators.emt import EMT

        atoms = structure.copy()
        atoms.calc = EMT()
        return Calculation(
            energy_eV=float(atoms.get_potential_energy()),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(voigt=False) if atoms.pbc.all() else None,
        )
