"""An EMT engine that fails in every way of a DFT program, within milliseconds.

An element in a structure selects its failure, so that one call can have every kind of failure.
Isolated atoms never fail.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling import Calculation, EmtEngine, EngineError, NotConvergedError

NEVER_CONVERGES, CONVERGES_LATER, RAISES, IS_KILLED, HANGS, PUSHED = (
    "Ag",
    "Au",
    "Pt",
    "Ni",
    "Pd",
    "Al",
)


@dataclass(frozen=True)
class ToyEngine(EmtEngine):
    calls_file: str = ""
    pause_s: float = 0.0
    level: int = 0

    name: ClassVar[str] = "toy"
    output: ClassVar[str] = "toy.txt"

    @property
    def physics(self) -> dict[str, Any]:
        return {"level": self.level}

    def check(self, symbols: Collection[str]) -> None:
        if "U" in symbols:
            raise EngineError("no data for U")

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        with Path(self.calls_file).open("a") as calls:
            calls.write(f"{structure.get_chemical_formula()}:{attempt}:{os.getpid()}\n")
        Path(self.output).write_text("=====\nstep 1\nstep 2\n\nenergy goes up\n")
        calculation = super().calculate(structure, attempt)
        if len(structure) > 1:
            time.sleep(self.pause_s)
            self._fail(set(structure.symbols), attempt)
            if PUSHED in structure.symbols:
                calculation.forces[0] += [1.0, 0.0, 0.0]
        return calculation

    @staticmethod
    def _fail(symbols: set[str], attempt: int) -> None:
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
