"""Quantum ESPRESSO: plane waves and pseudopotentials, as the program ``pw.x``.

P. Giannozzi et al., J. Phys.: Condens. Matter 29, 465901 (2017).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import Rydberg

from mlip_assets.labelling.engines.engine import Calculation, EngineError, NotConvergedError
from mlip_assets.labelling.engines.kpoints import k_grid
from mlip_assets.labelling.engines.program import ProgramEngine, text_of
from mlip_assets.labelling.engines.pseudopotentials import ElementFiles, check_unchanged, upf_files
from mlip_assets.labelling.structure import is_isolated_atom

#: Name of a functional in ``pw.x``, and its possible names in the header of a pseudopotential file.
_FUNCTIONALS = {
    "LDA": ("sla+pw+nogx+nogc", {"SLA PW NOGX NOGC", "PW", "LDA"}),
    "PBE": ("pbe", {"PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
    "revPBE": ("revpbe", {"REVPBE", "PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
    "RPBE": ("sla+pw+hhnx+pbc", {"RPBE", "PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
}
#: Numerical settings by attempt: smaller mixing and a screening for inhomogeneous cells, then another
#: diagonalisation, then random initial wave functions.
_ATTEMPTS: tuple[dict[str, Any], ...] = (
    {"mixing_beta": 0.4, "diagonalization": "david"},
    {"mixing_beta": 0.2, "mixing_mode": "local-TF", "diagonalization": "david"},
    {"mixing_beta": 0.1, "mixing_mode": "local-TF", "diagonalization": "cg"},
    {"mixing_beta": 0.1, "mixing_ndim": 16, "diagonalization": "cg", "startingwfc": "random"},
)
#: Routines that fail because of the numerical settings, not because of the structure.
_NUMERICAL_ROUTINES = (
    "c_bands",
    "cdiaghg",
    "rdiaghg",
    "electrons",
    "cegterg",
    "regterg",
    "mix_rho",
)


@dataclass(frozen=True)
class EspressoEngine(ProgramEngine):
    """``pw.x``, with the input writer and output reader of ASE.

    Convergence is determined from the message of ``pw.x`` on self-consistency, not from its exit
    status. ``energy_convergence_eV`` is the estimated error of self-consistency per atom.
    """

    name: ClassVar[str] = "espresso"
    output: ClassVar[str] = "espresso.pwo"
    default_command: ClassVar[str] = "pw.x"
    install: ClassVar[str] = "apt-get install --no-install-recommends quantum-espresso"

    @classmethod
    def _find_files(cls, folder: Path, elements: Collection[str]) -> ElementFiles:
        return upf_files(folder, elements)

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` if ``pw.x`` or a pseudopotential for the functional is missing."""
        super().check(symbols)
        for symbol in sorted(symbols):
            path, _ = self.pseudopotentials[symbol]
            functional = _functional_of(path)
            if functional not in _FUNCTIONALS[self.xc][1]:
                raise EngineError(
                    f"{path} was made for {functional or 'an unnamed functional'}, not for xc: "
                    f"{self.xc}; choose another pseudopotential family or another functional"
                )

    def numerics(self, attempt: int) -> dict[str, Any]:
        """Namelist ``&ELECTRONS`` of ``pw.x``, without the convergence threshold."""
        settings = _ATTEMPTS[min(attempt, len(_ATTEMPTS) - 1)]
        return {"electron_maxstep": self._max_iterations(attempt), **settings}

    def program(self) -> str:
        """``pw.x`` and its version, from its output."""
        found = re.search(r"Program PWSCF v\.(\S+)", text_of(self.output))
        return f"pw.x {found[1]}" if found else "pw.x"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Free energy, forces and, if fully periodic, stress."""
        from ase.calculators.espresso import Espresso, EspressoProfile

        check_unchanged(self.pseudopotentials, structure.symbols)
        size, shifted = k_grid(structure, self.k_spacing_per_A)
        files = {s: Path(self.pseudopotentials[s][0]) for s in set(structure.symbols)}
        for file in files.values():  # pw.x reads one folder, and not every path
            Path(file.name).unlink(missing_ok=True)
            Path(file.name).symlink_to(file)
        profile = EspressoProfile(command=self._command, pseudo_dir=".")
        espresso = Espresso(
            profile=profile,
            directory=".",
            input_data=self._input(structure, attempt),
            pseudopotentials={symbol: file.name for symbol, file in files.items()},
            kpts=size if max(size) > 1 else None,  # None: Γ only, at half the cost
            koffset=shifted,
            # pw.x before 7.3 reads a fraction of the valence electrons in place of a moment
            rescale_magmom_fac=10.0,
        )
        espresso.write_inputfiles(structure, ["energy", "forces", "stress"])
        status = self._run(["-in", espresso.template.inputname])
        _check_convergence(text_of(self.output), status, self._max_iterations(attempt))
        try:
            results = espresso.template.read_results(espresso.directory)
        except (ValueError, IndexError) as error:  # such as ***** for a force that overflowed
            raise RuntimeError(f"the results of pw.x cannot be read ({error})") from error
        stress = voigt_6_to_full_3x3_stress(results["stress"]) if structure.pbc.all() else None
        return Calculation(float(results["free_energy"]), results["forces"], stress)

    def _input(self, structure: Atoms, attempt: int) -> dict[str, Any]:
        ecutwfc_Ry = self.cutoff_eV / Rydberg
        system: dict[str, Any] = {
            "ecutwfc": ecutwfc_Ry,
            "input_dft": _FUNCTIONALS[self.xc][0],
            "occupations": "smearing",
            "smearing": "fermi-dirac",
            "degauss": self.smearing_eV / Rydberg,
            "tot_charge": self._charge_of(structure),
            "nosym": True,
        }
        moments = structure.get_initial_magnetic_moments()
        if (
            is_isolated_atom(structure) and moments.any()
        ):  # fixed, so that the state does not change
            system["tot_magnetization"] = float(moments.sum())
        return {
            "control": {
                "calculation": "scf",
                "tprnfor": True,
                "tstress": bool(structure.pbc.all()),
                "disk_io": "none",
                "outdir": "./scratch",
            },
            "system": system,
            "electrons": {
                "conv_thr": self.energy_convergence_eV * len(structure) / Rydberg,
                **self.numerics(attempt),
            },
        }


def _check_convergence(output: str, status: int, max_iterations: int) -> None:
    """Raise unless the output reports self-consistency."""
    if "convergence NOT achieved" in output:
        raise NotConvergedError(f"no self-consistency in {max_iterations} iterations")
    failure = re.search(r"Error in routine\s+(\S+)\s+\(.*?\):\s*(.+?)\s*%%%", output, re.DOTALL)
    if failure:
        message = f"pw.x stopped in {failure[1]}: {' '.join(failure[2].split())}"
        if failure[1] in _NUMERICAL_ROUTINES:
            raise NotConvergedError(message)
        raise RuntimeError(message)
    if "convergence has been achieved" not in output or "JOB DONE" not in output:
        raise RuntimeError(f"pw.x ended with exit status {status} without convergence")


def _functional_of(upf: str) -> str:
    found = re.search(r"functional\s*=\s*[\"']([^\"']*)[\"']", text_of(upf))
    return " ".join(found[1].upper().split()) if found else ""
