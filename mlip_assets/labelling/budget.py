"""The budget: when to stop spending."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """How many calculations may be started, and how many core-hours they may take.

    Each calculation has one core, so its core-hours are its wall time. What runs counts with what
    it is expected to take, so that the last calculations do not overrun the budget together.

    Attributes
    ----------
    calls
        Most calculations, further attempts included; None for no limit.
    core_hours
        Most core-hours; None for no limit. A calculation is started only where what it is expected
        to take is left; where nothing is known yet, where anything is left.
    """

    calls: int | None = None
    core_hours: float | None = None
    n_started: int = 0
    spent_core_hours: float = 0.0
    _expected: float = 0.0

    def affords(self, expected_core_hours: float | None) -> bool:
        """Whether one more calculation may be started."""
        if self.calls is not None and self.n_started >= self.calls:
            return False
        if self.core_hours is None:
            return True
        left = self.core_hours - self.spent_core_hours - self._expected
        return left > 0 and left >= (expected_core_hours or 0.0)

    def start(self, expected_core_hours: float | None) -> None:
        """One has been started."""
        self.n_started += 1
        self._expected += expected_core_hours or 0.0

    def end(self, expected_core_hours: float | None, core_hours: float) -> None:
        """One that had been started has ended."""
        self._expected -= expected_core_hours or 0.0
        self.spent_core_hours += core_hours
