"""Budget of one call: number of calculations and core-hours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """Limits of calculations and core-hours, and what was used of them.

    Each calculation has one core, so its core-hours are its wall time. A running calculation counts
    with its expected core-hours, so that the last calculations do not exceed the budget together.

    Attributes
    ----------
    calls
        Largest number of calculations, further attempts included; None for no limit.
    core_hours
        Largest number of core-hours; None for no limit. A calculation is started only if its
        expected core-hours remain, or any if they are unknown.
    n_started
        Calculations started so far.
    spent_core_hours
        Core-hours of the calculations that ended.
    """

    calls: int | None = None
    core_hours: float | None = None
    n_started: int = 0
    spent_core_hours: float = 0.0
    _running_core_hours: float = 0.0

    def allows(self, expected_core_hours: float | None) -> bool:
        """Whether one more calculation may be started."""
        if self.calls is not None and self.n_started >= self.calls:
            return False
        if self.core_hours is None:
            return True
        remaining = self.core_hours - self.spent_core_hours - self._running_core_hours
        return remaining > 0 and remaining >= (expected_core_hours or 0.0)

    def start(self, expected_core_hours: float | None) -> None:
        """Count a calculation that was started."""
        self.n_started += 1
        self._running_core_hours += expected_core_hours or 0.0

    def end(self, expected_core_hours: float | None, core_hours: float) -> None:
        """Count a started calculation that ended after ``core_hours``."""
        self._running_core_hours -= expected_core_hours or 0.0
        self.spent_core_hours += core_hours
