"""Structures that are not periodic in all directions, for programs that require periodicity."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import complete_cell


class BoxedCalculator(Calculator):
    """Evaluates each structure in a periodic box whose images do not interact.

    matgl treats a slab, periodic in two directions, as a molecule, and has no virial for either.
    CHGNet requires a cell, which a molecule does not have.

    Parameters
    ----------
    periodic
        The ASE calculator of the model.
    r_cut
        Cut-off radius of the model, Å.
    """

    def __init__(self, periodic: Any, r_cut: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self._periodic, self._r_cut = periodic, r_cut

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute energy (eV), forces (eV/Å) and, if the cell has a volume, stress (eV/Å³)."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert isinstance(self.atoms, Atoms)
        boxed = add_periodic_box(self.atoms, margin_A=self._r_cut + 1)
        self._periodic.calculate(boxed)
        found = self._periodic.results
        self.results = {
            "energy": float(found["energy"]),
            "free_energy": float(found["energy"]),
            "forces": found["forces"],
        }
        if self.atoms.cell.rank == 3:
            self.results["stress"] = found["stress"] * (
                boxed.get_volume() / self.atoms.get_volume()
            )


def add_periodic_box(atoms: Atoms, margin_A: float) -> Atoms:
    """The same atoms, periodic in all directions, with images ``margin_A`` apart in the new ones."""
    boxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    cell = complete_cell(atoms.cell)
    for axis in np.flatnonzero(~atoms.pbc):
        normal = np.cross(cell[axis - 2], cell[axis - 1])
        normal /= np.linalg.norm(normal)
        cell[axis] = normal * (np.ptp(atoms.positions @ normal) + margin_A)
    boxed.set_cell(cell)
    return boxed
