"""ASE's effective-medium theory: milliseconds per label, for tests and examples, not for campaigns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

from ase import Atoms

from mlip_assets.labelling.engines.engine import Calculation, EngineError
from mlip_assets.labelling.structure import with_vacuum


@dataclass(frozen=True)
class EmtEngine:
    """Effective-medium theory for Ni, Cu, Pd, Ag, Pt, Au and Al, and with low accuracy H, C, N and O.

    Its energies are not comparable to those of DFT. K. W. Jacobsen, P. Stoltze and J. K. Nørskov,
    Surf. Sci. 366, 394 (1996).
    """

    retries: int = 1
    timeout_s: float = 60.0
    memory_limit_GiB: float | None = None
    max_net_force_eV_per_A: float = 0.05

    name: ClassVar[str] = "emt"
    output: ClassVar[str] = "emt.txt"

    @property
    def physics(self) -> dict[str, Any]:
        """The model; it has no settings."""
        return {"model": "EMT as in ASE"}

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` for an element without parameters."""
        from ase.calculators.emt import parameters

        missing = sorted(set(symbols) - set(parameters))
        if missing:
            raise EngineError(f"EMT has no parameters for {', '.join(missing)}")

    def prepare(self, atoms: Atoms) -> Atoms:
        """Add vacuum along the directions that are not periodic."""
        return with_vacuum(atoms, 5.0)

    def numerics(self, attempt: int) -> dict[str, Any]:
        """The number of the attempt; there is no self-consistency."""
        return {"attempt": attempt}

    def program(self) -> str:
        """ASE and its version."""
        return f"ase {version('ase')}"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:  # noqa: ARG002
        """Energy, forces and, if fully periodic, stress."""
        from ase.calculators.emt import EMT

        atoms = structure.copy()
        atoms.calc = EMT()
        return Calculation(
            energy_eV=float(atoms.get_potential_energy()),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(voigt=False) if atoms.pbc.all() else None,
        )
