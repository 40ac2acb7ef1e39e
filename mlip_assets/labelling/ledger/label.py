"""Records of the ledger: a label, a registered structure, and the total spending."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.labelling.engines.engine import Attempt, Calculation

#: ``done``: accepted; ``refused``: computed, but rejected by a gate. ``not_converged`` and ``error``
#: are the same in every repetition. ``timeout`` may succeed with a longer limit, ``memory`` with a
#: larger one, and ``died`` (killed from outside) without any change.
Outcome = Literal["done", "refused", "not_converged", "error", "timeout", "memory", "died"]


@dataclass(frozen=True)
class Label:
    """Result of the calculations of one structure with one engine and its settings.

    Attributes
    ----------
    key
        SHA-256 of the structure, the engine and its settings.
    engine, settings_hash
        Name of the engine, and SHA-256 of its physics.
    outcome, reason
        How the last calculation ended; the reason is empty if the outcome is ``done``.
    attempts
        Number of calculations so far.
    wall_s, timeout_s
        Total time of these calculations, and the time limit of each, s.
    program
        Name and version of the program.
    calculation
        Energy, forces and stress; None unless the outcome is ``done`` or ``refused``.
    attempts_log
        Numerical settings and ending of each calculation.
    row
        Row number in the ledger; 0 for a label that is not stored.
    """

    key: str
    engine: str
    settings_hash: str
    outcome: Outcome
    reason: str
    attempts: int
    wall_s: float
    timeout_s: float
    program: str
    calculation: Calculation | None
    attempts_log: tuple[Attempt, ...] = ()
    row: int = field(default=0, compare=False)

    @property
    def is_done(self) -> bool:
        """Whether the label may be used for training."""
        return self.outcome == "done"


@dataclass(frozen=True)
class Entry:
    """A structure and the equal one that is registered in the ledger.

    Attributes
    ----------
    key
        Key of the label.
    structure
        The registered structure, which is the one that is computed.
    permutation
        ``(n_atoms,)``; for each atom of ``structure`` the index of the same atom in the structure
        that was looked up.
    """

    key: str
    structure: Atoms
    permutation: NDArray[np.intp]

    def permute_forces(self, label: Label) -> Label:
        """The label with its forces in the atom order of the structure that was looked up."""
        if label.calculation is None:
            return label
        forces = np.empty_like(label.calculation.forces)
        forces[self.permutation] = label.calculation.forces
        return replace(label, calculation=replace(label.calculation, forces=forces))


@dataclass(frozen=True)
class Spending:
    """Calculations of all campaigns that share a ledger.

    Attributes
    ----------
    n_started
        Calculations started, further attempts included.
    n_running
        Calculations that a live process is computing.
    n_lost
        Calculations that were killed together with the process that had started them.
    core_hours
        Core-hours of the calculations that ended.
    """

    n_started: int
    n_running: int
    n_lost: int
    core_hours: float
