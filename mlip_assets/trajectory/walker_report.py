"""The final state of a walker: its steps, its frames and the guards that it violated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GuardEvent:
    """A guard that a walker violated."""

    step: int
    time_fs: float
    reason: str
    """Name of the guard."""
    detail: str
    target_temperature_K: float
    timestep_fs: float
    resumed_from_step: int | None
    """The valid frame from which a retry started; None: the walker stopped."""
    resumed_from_fs: float = 0.0


@dataclass(frozen=True)
class WalkerReport:
    """The final state of one walker."""

    number: int
    name: str
    seed_name: str
    seed_kind: str
    target_temperature_K: float
    """At its last step."""
    replica: int
    n_steps: int
    n_frames: int
    stopped_by: str | None
    """The guard that stopped it; None: it completed all steps."""
    conditions: str = ""
    """Ensemble, temperatures and pressure, readable."""
    n_atoms: int = 0
    events: tuple[GuardEvent, ...] = ()
    wall_s: float = field(default=0.0, compare=False)
    """Time of its steps, summed over all runs."""

    @property
    def steps_per_s(self) -> float:
        """Steps per second; 0 if no time was measured."""
        return self.n_steps / self.wall_s if self.wall_s > 0 else 0.0

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> WalkerReport:
        """Restore from the values that JSON stores."""
        events = tuple(GuardEvent(**event) for event in plain.get("events", ()))
        return cls(**{**plain, "events": events})
