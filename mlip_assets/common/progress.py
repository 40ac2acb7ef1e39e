"""Progress of long work, told through the logging module: done, rate and time to go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """Where long work stands; as text: ``MD: 40/80 steps (50 %), 8.0 steps/s, ETA 0:05``."""

    label: str
    unit: str
    done: int
    total: int
    rate_per_s: float
    """Units a second in this run; 0 when nothing can be said yet."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the last unit was like, such as its loss."""

    @property
    def remaining_s(self) -> float | None:
        """Seconds to go at this rate, or None when there is none yet."""
        return (self.total - self.done) / self.rate_per_s if self.rate_per_s > 0 else None

    def __str__(self) -> str:
        percent = 100 * self.done / self.total if self.total else 100.0
        said = f"{self.label}: {self.done}/{self.total} {self.unit} ({percent:.0f} %)"
        said += "".join(f", {name} {value:.4g}" for name, value in self.figures.items())
        if self.remaining_s is None:
            return said
        rate, unit = self.rate_per_s, self.unit
        speed = f"{rate:.1f} {unit}/s" if rate >= 1 else f"{rate * 60:.1f} {unit}/min"
        return f"{said}, {speed}, ETA {_clock_face(self.remaining_s)}"


class Progress:
    """Counts finished units of work and logs them at most once every ``every_s`` seconds.

    Dagster forwards these log lines to the run's event log (``dagster.yaml``), so the same
    sentence reaches the terminal and the UI without any science module knowing Dagster. Who wants
    the figures themselves gives ``on_told``, which is called as often as a line is logged.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        already_done: int = 0,
        every_s: float = 5.0,
        on_told: Callable[[Standing], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.label, self.total, self.unit = label, total, unit
        self.done = self.already_done = already_done
        self._uncounted = already_done
        self._every_s, self._on_told = every_s, on_told
        self._started = self._told = self._clock()
        self._under_way = False
        self._figures: Mapping[str, float] = {}
        if already_done:
            _log.info("%s: resuming, %d of %d %s already done", label, already_done, total, unit)

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count ``n`` more units, and tell when it is time to, or when all is done.

        ``figures`` describe the last of them and are told with the rest.
        """
        self.done += n
        self._figures = figures
        if not self._under_way and 100 * n <= self.total:
            # The first of many units paid for loading a model; the rate must not.
            self._started, self._uncounted = self._clock(), self.done
        self._under_way = True
        self._tell_when_due()

    def skip(self, n: int) -> None:
        """Count ``n`` units that an earlier run had finished; they say nothing about the rate."""
        self.done += n
        self.already_done += n
        self._uncounted += n
        self._tell_when_due()

    def standing(self) -> Standing:
        """Where things stand now."""
        elapsed_s = self._clock() - self._started
        rate = (self.done - self._uncounted) / elapsed_s if elapsed_s > 0 else 0.0
        return Standing(self.label, self.unit, self.done, self.total, rate, self._figures)

    def end(self) -> None:
        """Tell where things stand when no more will come, unless that was told: all is done."""
        if self.done < self.total:
            self._tell()

    def _tell_when_due(self) -> None:
        if self._clock() - self._told >= self._every_s or self.done >= self.total:
            self._tell()

    def _tell(self) -> None:
        self._told = self._clock()
        standing = self.standing()
        _log.info("%s", standing)
        if self._on_told is not None:
            self._on_told(standing)


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
