"""VASP: plane waves and the projector-augmented-wave method. **Not tested with VASP itself**.

No licence was available. Tests cover the input files and the reading of output; verify the first
labels of a real installation. G. Kresse and J. Furthmüller, Phys. Rev. B 54, 11169 (1996).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms

from mlip_assets.common.files import write_text
from mlip_assets.labelling.engines.engine import Calculation, NotConvergedError
from mlip_assets.labelling.engines.kpoints import k_grid
from mlip_assets.labelling.engines.program import ProgramEngine, text_of
from mlip_assets.labelling.engines.pseudopotentials import (
    ElementFiles,
    check_unchanged,
    potcar_files,
)
from mlip_assets.labelling.structure import is_isolated_atom

#: Numerical settings by attempt: smaller mixing, then another diagonalisation, then direct
#: minimisation of all bands without mixing.
_ATTEMPTS: tuple[dict[str, Any], ...] = (
    {"algo": "Normal"},
    {"algo": "Normal", "amix": 0.1, "bmix": 0.01},
    {"algo": "VeryFast", "amix": 0.1, "bmix": 0.01},
    {"algo": "All"},
)


@dataclass(frozen=True)
class VaspEngine(ProgramEngine):
    """VASP, with the input writer and output reader of ASE; not tested with VASP itself.

    Convergence is determined from the OUTCAR. ``energy_convergence_eV`` is the change of the energy
    per atom.
    """

    name: ClassVar[str] = "vasp"
    output: ClassVar[str] = "vasp.out"
    default_command: ClassVar[str] = "vasp_std"
    install: ClassVar[str] = "VASP is licensed, see vasp.at"

    @classmethod
    def _find_files(cls, folder: Path, elements: Collection[str]) -> ElementFiles:
        return potcar_files(folder, elements)

    def numerics(self, attempt: int) -> dict[str, Any]:
        """Tags of the INCAR for self-consistency, without EDIFF."""
        settings = _ATTEMPTS[min(attempt, len(_ATTEMPTS) - 1)]
        return {"nelm": self._max_iterations(attempt), **settings}

    def program(self) -> str:
        """VASP and its version, from the OUTCAR."""
        found = re.search(r"vasp\.(\S+)", text_of("OUTCAR"))
        return f"vasp {found[1]}" if found else "vasp"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Free energy, forces and, if fully periodic, stress."""
        from ase.io import read

        check_unchanged(self.pseudopotentials, structure.symbols)
        order = self.write_input(structure, attempt)
        status = self._run()
        _check_convergence(text_of("OUTCAR"), status, self._max_iterations(attempt))
        calculated = read("vasprun.xml", format="vasp-xml")
        assert isinstance(calculated, Atoms)
        return Calculation(
            energy_eV=float(calculated.get_potential_energy(force_consistent=True)),
            forces=calculated.get_forces()[order],
            stress=calculated.get_stress(voigt=False) if structure.pbc.all() else None,
        )

    def write_input(self, structure: Atoms, attempt: int) -> list[int]:
        """Write INCAR, KPOINTS, POSCAR and POTCAR; returns the index of each atom in them."""
        from ase.calculators.vasp import Vasp

        folders = {s: Path(self.pseudopotentials[s][0]).parent for s in set(structure.symbols)}
        moments = structure.get_initial_magnetic_moments()
        is_fixed = is_isolated_atom(structure) and moments.any()
        charge = self._charge_of(structure)
        vasp = Vasp(
            directory=".",
            xc=self.xc.lower(),
            pp=str(next(iter(folders.values())).parent),
            setups={symbol: folder.name[len(symbol) :] for symbol, folder in folders.items()},
            encut=self.cutoff_eV,
            ediff=self.energy_convergence_eV * len(structure),
            ismear=-1,  # Fermi-Dirac
            sigma=self.smearing_eV,
            prec="Accurate",
            lreal=False,
            lasph=True,
            ibrion=-1,
            nsw=0,
            isif=2,
            isym=0,  # time reversal only
            lwave=False,
            lcharg=False,
            nupdown=float(moments.sum()) if is_fixed else None,
            charge=charge or None,
            kpts=(1, 1, 1),
            **self.numerics(attempt),
        )
        vasp.write_input(structure)
        size, shifted = k_grid(structure, self.k_spacing_per_A)
        grid = " ".join(map(str, size))
        shift = " ".join("0.5" if s else "0" for s in shifted)
        write_text(Path("KPOINTS"), f"half a step off Gamma\n0\nGamma\n{grid}\n{shift}\n")
        order: list[int] = list(vasp.resort)
        return order


def _check_convergence(outcar: str, status: int, max_iterations: int) -> None:
    """Raise unless the OUTCAR reports self-consistency."""
    if "aborting loop because EDIFF is reached" in outcar:
        return
    if "aborting loop" in outcar:
        raise NotConvergedError(f"no self-consistency in {max_iterations} iterations")
    raise RuntimeError(f"vasp ended with exit status {status} without convergence")
