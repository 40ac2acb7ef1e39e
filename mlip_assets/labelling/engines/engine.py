"""What a DFT program must offer to label frames. Another program is one more module like ``gpaw``.

An engine is a frozen dataclass whose fields are plain JSON values, because the child process that
computes a label rebuilds it from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


class EngineError(RuntimeError):
    """The engine cannot compute these frames at all: it, or its data, is not installed."""


class NotConvergedError(RuntimeError):
    """Self-consistency was not reached; safer numerics may help."""


class KilledError(RuntimeError):
    """The program was killed from outside; the same calculation may pass another time."""


@dataclass(frozen=True)
class Calculation:
    """What one calculation gives.

    Attributes
    ----------
    energy_eV
        Force-consistent (free) energy, of which the forces are the derivatives.
    forces
        ``(n_atoms, 3)``, eV/Å.
    stress
        ``(3, 3)``, eV/Å³, positive under tension; None unless periodic in all three directions.
    """

    energy_eV: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None


@dataclass(frozen=True)
class Attempt:
    """One calculation on the way to a label, as the label's ``attempts_log`` keeps it.

    Attributes
    ----------
    number
        0 for the first.
    numerics
        How the program was told to reach self-consistency; the physics is always the same.
    outcome, reason
        How it ended, in the words of :data:`mlip_assets.labelling.ledger.ledger.Outcome`.
    wall_s
        How long it took.
    timeout_s, memory_limit_GiB
        What it was allowed; None for no limit.
    """

    number: int
    numerics: Mapping[str, Any]
    outcome: str
    reason: str
    wall_s: float
    timeout_s: float
    memory_limit_GiB: float | None


class DftEngine(Protocol):
    """A DFT program with its settings."""

    #: Stable name; part of every label's key.
    name: ClassVar[str]
    #: The text file, in the working folder, in which the program tells what it does.
    output: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def physics(self) -> Mapping[str, Any]:
        """The settings on which labels depend; none that only decide how they are reached."""

    @property
    def retries(self) -> int:
        """How many further attempts with safer numerics follow one that did not converge."""

    @property
    def timeout_s(self) -> float:
        """Longest time for one calculation."""

    @property
    def memory_limit_GiB(self) -> float | None:
        """Most resident memory of one calculation with all its processes; None for no limit."""

    @property
    def max_net_force_eV_per_A(self) -> float:
        """Forces that sum to more than this are refused."""

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` if the program, or its data for an element, is missing."""

    def prepare(self, atoms: Atoms) -> Atoms:
        """The structure that is computed for these atoms, in the same order."""

    def numerics(self, attempt: int) -> Mapping[str, Any]:
        """How an attempt reaches self-consistency, in the program's words; logged with the label."""

    def program(self) -> str:
        """Name and version of the program, as installed or as told by the working folder."""

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Compute in the working folder; a higher attempt has safer numerics and equal physics.

        Raises
        ------
        NotConvergedError
            Self-consistency was not reached, as the program's own output tells.
        KilledError
            The program was killed.
        """


def hash_of(engine: DftEngine) -> str:
    """SHA-256 of the engine's physics."""
    text = json.dumps(dict(engine.physics), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
