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
from mlip_assets.labelling.structure import is_isolated

#: How ``pw.x`` calls a functional, and how the header of a file made for it may spell it.
_FUNCTIONALS = {
    "LDA": ("sla+pw+nogx+nogc", {"SLA PW NOGX NOGC", "PW", "LDA"}),
    "PBE": ("pbe", {"PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
    "revPBE": ("revpbe", {"REVPBE", "PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
    "RPBE": ("sla+pw+hhnx+pbc", {"RPBE", "PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}),
}
#: Less mixing and screening fit for uneven cells, then another diagonalisation, then random waves.
_LADDER: tuple[dict[str, Any], ...] = (
    {"mixing_beta": 0.4, "diagonalization": "david"},
    {"mixing_beta": 0.2, "mixing_mode": "local-TF", "diagonalization": "david"},
    {"mixing_beta": 0.1, "mixing_mode": "local-TF", "diagonalization": "cg"},
    {"mixing_beta": 0.1, "mixing_ndim": 16, "diagonalization": "cg", "startingwfc": "random"},
)
#: Routines whose failure depends on the way to self-consistency, not on the structure.
_NUMERICAL = ("c_bands", "cdiaghg", "rdiaghg", "electrons", "cegterg", "regterg", "mix_rho")


@dataclass(frozen=True)
class EspressoEngine(ProgramEngine):
    """``pw.x``, through the input writer and output reader of ASE.

    Whether a calculation has converged is read from what ``pw.x`` says of its self-consistency,
    not from the way it ends. ``energy_convergence_eV`` is the estimated error of self-consistency
    per atom.
    """

    name: ClassVar[str] = "espresso"
    output: ClassVar[str] = "espresso.pwo"
    usual_command: ClassVar[str] = "pw.x"
    install: ClassVar[str] = "apt-get install --no-install-recommends quantum-espresso"

    @classmethod
    def _find(cls, folder: Path, elements: Collection[str]) -> ElementFiles:
        return upf_files(folder, elements)

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` unless ``pw.x`` and fitting data for all elements are here."""
        super().check(symbols)
        for symbol in sorted(symbols):
            path, _ = self.pseudopotentials[symbol]
            functional = _functional_of(path)
            if functional not in _FUNCTIONALS[self.xc][1]:
                raise EngineError(
                    f"{path} was made for {functional or 'an unnamed functional'}, not for xc: "
                    f"{self.xc}; take another family, or another functional"
                )

    def numerics(self, attempt: int) -> dict[str, Any]:
        """The ``&ELECTRONS`` of ``pw.x``, but for the threshold."""
        rung = _LADDER[min(attempt, len(_LADDER) - 1)]
        return {"electron_maxstep": self._max_iterations(attempt), **rung}

    def program(self) -> str:
        """The version that ``pw.x`` has written into its output."""
        found = re.search(r"Program PWSCF v\.(\S+)", text_of(self.output))
        return f"pw.x {found[1]}" if found else "pw.x"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Free energy, forces and, when fully periodic, stress."""
        from ase.calculators.espresso import Espresso, EspressoProfile

        check_unchanged(self.pseudopotentials, structure.symbols)
        size, shifted = k_grid(structure, self.k_spacing_per_A)
        files = {s: Path(self.pseudopotentials[s][0]) for s in set(structure.symbols)}
        for file in files.values():  # pw.x takes them from one folder and cannot read all paths
            Path(file.name).unlink(missing_ok=True)
            Path(file.name).symlink_to(file)
        profile = EspressoProfile(command=self._command, pseudo_dir=".")
        espresso = Espresso(
            profile=profile,
            directory=".",
            input_data=self._input(structure, attempt),
            pseudopotentials={symbol: file.name for symbol, file in files.items()},
            kpts=size if max(size) > 1 else None,  # None: Γ alone, at half the cost
            koffset=shifted,
            # pw.x before 7.3 takes a share of the valence electrons in place of a moment
            rescale_magmom_fac=10.0,
        )
        espresso.write_inputfiles(structure, ["energy", "forces", "stress"])
        status = self._run(["-in", espresso.template.inputname])
        _judge(text_of(self.output), status, self._max_iterations(attempt))
        try:
            results = espresso.template.read_results(espresso.directory)
        except (ValueError, IndexError) as error:  # such as ***** where a force has overflowed
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
        if is_isolated(structure) and moments.any():  # held, so that it stays in its state
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


def _judge(output: str, status: int, max_iterations: int) -> None:
    """Raise unless the output says that self-consistency was reached."""
    if "convergence NOT achieved" in output:
        raise NotConvergedError(f"no self-consistency in {max_iterations} iterations")
    trouble = re.search(r"Error in routine\s+(\S+)\s+\(.*?\):\s*(.+?)\s*%%%", output, re.DOTALL)
    if trouble:
        message = f"pw.x stopped in {trouble[1]}: {' '.join(trouble[2].split())}"
        if trouble[1] in _NUMERICAL:
            raise NotConvergedError(message)
        raise RuntimeError(message)
    if "convergence has been achieved" not in output or "JOB DONE" not in output:
        raise RuntimeError(f"pw.x ended with exit status {status} without having converged")


def _functional_of(upf: str) -> str:
    found = re.search(r"functional\s*=\s*[\"']([^\"']*)[\"']", text_of(upf))
    return " ".join(found[1].upper().split()) if found else ""
