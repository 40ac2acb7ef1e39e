"""Interface of a DFT engine, its results and its errors.

An engine is a frozen dataclass whose fields are plain JSON values. The child process that computes
a label creates the engine again from its module, its class name and these values.
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
    """The engine cannot compute these frames: the program, or its data for an element, is missing."""


class NotConvergedError(RuntimeError):
    """Self-consistency was not reached; more robust numerical settings may help."""


class KilledError(RuntimeError):
    """The program was killed from outside; a repetition may succeed."""


@dataclass(frozen=True)
class Calculation:
    """Result of one calculation.

    Attributes
    ----------
    energy_eV
        Force-consistent (free) energy, eV; the forces are its derivatives.
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
    """One calculation of a structure, an entry of the label's ``attempts_log``.

    Attributes
    ----------
    number
        0 for the first.
    numerics
        Settings of the path to self-consistency; the physics is the same in all attempts.
    outcome, reason
        How it ended; values of :data:`mlip_assets.labelling.ledger.label.Outcome`.
    wall_s
        Wall time, s.
    timeout_s, memory_limit_GiB
        Limits of the calculation; None for no limit.
    """

    number: int
    numerics: Mapping[str, Any]
    outcome: str
    reason: str
    wall_s: float
    timeout_s: float
    memory_limit_GiB: float | None


class DftEngine(Protocol):
    """A DFT program with its settings.

    A frozen dataclass with fields that are JSON values. Three groups of settings are distinguished:
    the physics, on which labels depend and which is part of every label key; the numerical settings
    of an attempt, which only change the path to self-consistency; and the limits of a calculation.

    Attributes
    ----------
    name
        Stable name; part of every label key, so it is never changed.
    output
        Name of the program's text output in the working folder; its last lines are quoted in the
        reason of a failure.
    """

    name: ClassVar[str]
    output: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def physics(self) -> Mapping[str, Any]:
        """The settings on which labels depend, as JSON values; hashed by :func:`hash_of`."""

    @property
    def retries(self) -> int:
        """Number of further attempts, with more robust numerical settings, after no convergence."""

    @property
    def timeout_s(self) -> float:
        """Longest time of one calculation, s."""

    @property
    def memory_limit_GiB(self) -> float | None:
        """Largest resident memory of one calculation, all processes, GiB; None for no limit."""

    @property
    def max_net_force_eV_per_A(self) -> float:
        """Largest accepted norm of the sum of all forces, eV/Å."""

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` if the program, or its data for an element, is missing."""

    def prepare(self, atoms: Atoms) -> Atoms:
        """The structure to compute for these atoms, in the same order, with vacuum and spin."""

    def numerics(self, attempt: int) -> Mapping[str, Any]:
        """Numerical settings of an attempt, as parameters of the program; logged with the label."""

    def program(self) -> str:
        """Name and version of the program, as installed or from its output in the working folder."""

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:
        """Compute in the working folder, with the numerical settings of the attempt.

        Parameters
        ----------
        structure
            From :meth:`prepare`.
        attempt
            From 0; a later attempt has more robust numerical settings and the same physics.

        Raises
        ------
        NotConvergedError
            Self-consistency was not reached, according to the output of the program.
        KilledError
            The program was killed.
        """


def hash_of(engine: DftEngine) -> str:
    """SHA-256 of the engine's physics, which is part of every label key."""
    text = json.dumps(dict(engine.physics), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
