"""Progress of long work, told through the logging module: done, rate and time to go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Progress:
    """Counts finished units of work and logs them at most once every ``every_s`` seconds.

    Dagster forwards these log lines to the run's event log (``dagster.yaml``), so the same
    sentence reaches the terminal and the UI without any science module knowing Dagster.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        already_done: int = 0,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.label, self.total, self.unit = label, total, unit
        self.done = self._first = already_done
        self._every_s = every_s
        self._started = self._told = self._clock()
        self._under_way = False
        if already_done:
            _log.info("%s: resuming, %d of %d %s already done", label, already_done, total, unit)

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more units, and tell when it is time to, or when all is done."""
        now = self._clock()
        self.done += n
        if not self._under_way and 100 * n <= self.total:
            # The first of many units paid for loading a model; the rate must not.
            self._started, self._first = now, self.done
        self._under_way = True
        if now - self._told >= self._every_s or self.done >= self.total:
            self._told = now
            _log.info(self.sentence(now - self._started))

    def sentence(self, elapsed_s: float) -> str:
        """Say where things stand: ``MD: 40/80 steps (50 %), 8.0 steps/s, ETA 0:05``."""
        percent = 100 * self.done / self.total if self.total else 100.0
        said = f"{self.label}: {self.done}/{self.total} {self.unit} ({percent:.0f} %)"
        rate = (self.done - self._first) / elapsed_s if elapsed_s > 0 else 0.0
        if rate == 0:
            return said
        speed = f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{rate * 60:.1f} {self.unit}/min"
        return f"{said}, {speed}, ETA {_clock_face((self.total - self.done) / rate)}"


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
