"""ASE's effective-medium theory behind the engine protocol: as fast as DFT is slow.

The element of an atom decides what goes wrong with a structure, so that one call can meet every
kind of failure. Free atoms are always fine.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_assets.labelling import Calculation, EngineError, NotConvergedError
from mlip_assets.labelling.structure import boxed

NEVER_CONVERGES, CONVERGES_LATER, RAISES, IS_KILLED, HANGS, PUSHED = (
    "Ag",
    "Au",
    "Pt",
    "Ni",
    "Pd",
    "Al",
)


@dataclass(frozen=True)
class ToyEngine:
    calls_file: str
    pause_s: float = 0.0
    level: int = 0
    retries: int = 1
    timeout_s: float = 60.0
    max_net_force_eV_per_A: float = 0.05

    name: ClassVar[str] = "toy"
    output: ClassVar[str] = "toy.txt"

    @property
    def physics(self) -> dict[str, Any]:
        return {"level": self.level}

    def check(self, symbols: Collection[str]) -> None:
        if "U" in symbols:
            raise EngineError("no data for U")

    def prepare(self, atoms: Atoms) -> Atoms:
        return boxed(atoms, 5.0)

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        with Path(self.calls_file).open("a") as calls:
            calls.write(f"{structure.get_chemical_formula()}:{attempt}:{os.getpid()}\n")
        Path(self.output).write_text("=====\nstep 1\nstep 2\n\nenergy goes up\n")
        atoms = structure.copy()
        atoms.calc = EMT()
        forces = atoms.get_forces()
        if len(atoms) > 1:
            time.sleep(self.pause_s)
            self._misbehave(set(atoms.symbols), attempt)
            if PUSHED in atoms.symbols:
                forces[0] += [1.0, 0.0, 0.0]
        return Calculation(
            energy_eV=float(atoms.get_potential_energy()),
            forces=forces,
            stress=atoms.get_stress(voigt=False) if np.all(atoms.pbc) else None,
        )

    @staticmethod
    def _misbehave(symbols: set[str], attempt: int) -> None:
        if NEVER_CONVERGES in symbols or (CONVERGES_LATER in symbols and attempt == 0):
            raise NotConvergedError("charge sloshes")
        if RAISES in symbols:
            raise ZeroDivisionError("overlap is singular")
        if IS_KILLED in symbols:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGS in symbols:
            time.sleep(600)


def toy_frame(symbol: str, seed: int) -> Atoms:
    """Two atoms of rattled copper, the first replaced by ``symbol``, as a trajectory gives it."""
    atoms = bulk("Cu", "fcc", a=3.6).repeat((2, 1, 1))
    atoms.symbols[0] = symbol
    atoms.rattle(0.05, seed=seed)
    atoms.info = {"frame_id": 100 + seed, "walker": "crystal-300K-0", "seed_kind": "crystal"}
    return atoms
