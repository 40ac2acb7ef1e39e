"""Progress of long work, reported through the logging module: units done, rate, time remaining."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProgressReport:
    """State of long work; as text: ``MD: 40/80 steps (50 %), 8.0 steps/s, ETA 0:05``."""

    label: str
    unit: str
    done: int
    total: int
    rate_per_s: float
    """Units per second in this run; 0 while no rate is measured."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values that describe the last unit, such as its loss."""

    @property
    def remaining_s(self) -> float | None:
        """Seconds remaining at this rate, or None while no rate is measured."""
        return (self.total - self.done) / self.rate_per_s if self.rate_per_s > 0 else None

    def __str__(self) -> str:
        percent = 100 * self.done / self.total if self.total else 100.0
        text = f"{self.label}: {self.done}/{self.total} {self.unit} ({percent:.0f} %)"
        text += "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
        if self.remaining_s is None:
            return text
        rate, unit = self.rate_per_s, self.unit
        speed = f"{rate:.1f} {unit}/s" if rate >= 1 else f"{rate * 60:.1f} {unit}/min"
        return f"{text}, {speed}, ETA {_format_duration(self.remaining_s)}"


class Progress:
    """Counts finished units of work and logs them at most once every ``every_s`` seconds.

    Dagster forwards these log lines to the run's event log (``dagster.yaml``). The same sentence
    therefore appears on the terminal and in the UI, and no science module imports Dagster. A
    caller that needs the numbers passes ``on_progress``, called once for each logged line.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        already_done: int = 0,
        every_s: float = 5.0,
        on_progress: Callable[[ProgressReport], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.label, self.total, self.unit = label, total, unit
        self.done = self.already_done = already_done
        self._uncounted = already_done
        self._every_s, self._on_progress = every_s, on_progress
        self._started = self._reported = self._clock()
        self._advanced = False
        self._metrics: Mapping[str, float] = {}
        if already_done:
            _log.info("%s: resuming, %d of %d %s already done", label, already_done, total, unit)

    def advance(self, n: int = 1, **metrics: float) -> None:
        """Count ``n`` more units, and report if ``every_s`` have passed or all units are done.

        ``metrics`` describe the last of these units and are part of the report.
        """
        self.done += n
        self._metrics = metrics
        if not self._advanced and 100 * n <= self.total:
            # The time of the first of many units includes loading a model: exclude it.
            self._started, self._uncounted = self._clock(), self.done
        self._advanced = True
        self._report_if_due()

    def skip(self, n: int) -> None:
        """Count ``n`` units that an earlier run finished; they do not contribute to the rate."""
        self.done += n
        self.already_done += n
        self._uncounted += n
        self._report_if_due()

    def report(self) -> ProgressReport:
        """The current state."""
        elapsed_s = self._clock() - self._started
        rate = (self.done - self._uncounted) / elapsed_s if elapsed_s > 0 else 0.0
        return ProgressReport(self.label, self.unit, self.done, self.total, rate, self._metrics)

    def end(self) -> None:
        """Report the final state if the work ends early; complete work is already reported."""
        if self.done < self.total:
            self._report()

    def _report_if_due(self) -> None:
        if self._clock() - self._reported >= self._every_s or self.done >= self.total:
            self._report()

    def _report(self) -> None:
        self._reported = self._clock()
        report = self.report()
        _log.info("%s", report)
        if self._on_progress is not None:
            self._on_progress(report)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
