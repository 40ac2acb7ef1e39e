"""The rounds of a campaign: its first run, the refreshes after it, and when these have done enough."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from mlip_assets.campaign import CampaignError, RefreshSettings
from mlip_assets.common.files import AnyPath, as_path, write_text

ROUNDS_NAME = "rounds.json"


@dataclass(frozen=True)
class Round:
    """What one round began with and what it found; None: not known yet."""

    number: int
    """0 is the first run, k the k-th refresh."""
    run_ids: tuple[str, ...] = ()
    """Of Dagster: more than one where a run was killed and another went on."""
    explored_with: str | None = None
    """The promoted model it explored with, by its folder; None: the campaign's surrogate."""
    known_distance: float | None = None
    """Distance in the map within which a frame counts as known, where this round set it."""
    known_share: float | None = None
    """Share of the explored frames that earlier labels covered."""
    n_labels: int | None = None
    """Labels of the campaign when it ended."""
    error_ratio: float | None = None
    """Errors of its model over those of the promoted one, on the same held-out labels."""
    model: str | None = None
    """The model in use when it ended, by its folder; None: none has been promoted."""
    promoted: bool = False
    """Whether that is its own."""
    finished: bool = False

    @property
    def gain(self) -> float:
        """Share of the error that is gone; 0 where the model was not promoted."""
        return 1 - self.error_ratio if self.promoted and self.error_ratio is not None else 0.0


@dataclass(frozen=True)
class Rounds:
    """All rounds of a campaign, by number from 0."""

    rounds: tuple[Round, ...] = ()

    @classmethod
    def open(cls, path: AnyPath) -> Self:
        """Read what :meth:`save` wrote; no rounds where there is no file.

        Raises
        ------
        CampaignError
            The file is not what :meth:`save` writes.
        """
        file = as_path(path)
        if not file.exists():
            return cls()
        try:
            records = json.loads(file.read_text(encoding="utf-8"))
            rounds = [Round(**{**r, "run_ids": tuple(r["run_ids"])}) for r in records]
        except (ValueError, KeyError, TypeError) as error:
            raise CampaignError(
                f"{file} is not a record of rounds ({error!r}); restore it, or delete it to begin "
                "again with the first run, whose labels are not paid for again"
            ) from error
        return cls(tuple(rounds))

    def save(self, path: AnyPath) -> None:
        """Write the record whole or not at all."""
        write_text(path, json.dumps([asdict(r) for r in self.rounds], indent=1) + "\n")

    @property
    def next_number(self) -> int:
        """The one that is not finished, or the one after the last."""
        return next((r.number for r in self.rounds if not r.finished), len(self.rounds))

    def number_of(self, run_id: str, *, refreshing: bool) -> int:
        """The round a run works on.

        The one it began; else, when it refreshes, the next, and otherwise the last there is.
        """
        begun = (r.number for r in reversed(self.rounds) if run_id in r.run_ids)
        last = self.next_number if refreshing else max(len(self.rounds) - 1, 0)
        return next(begun, last)

    def begin(self, number: int, run_id: str, explored_with: str | None) -> Rounds:
        """With a round that a run works on from now; one begun before keeps its model."""
        if number == len(self.rounds):
            return Rounds((*self.rounds, Round(number, (run_id,), explored_with)))
        known = self.rounds[number]
        return self.record(number, run_ids=tuple(dict.fromkeys([*known.run_ids, run_id])))

    def record(self, number: int, **found: Any) -> Rounds:
        """With what a round has found."""
        return Rounds(tuple(replace(r, **found) if r.number == number else r for r in self.rounds))

    def reason_to_stop(self, settings: RefreshSettings) -> str | None:
        """Why no further refresh is worth its cost; None while one is.

        Converged: the last exploration found hardly anything that labels did not cover, and
        neither it nor the refreshes before it, ``patience`` in all, lowered the errors by much.
        """
        done = [r for r in self.rounds if r.number > 0]
        if self.next_number < len(self.rounds):
            return None  # what was begun is ended
        if len(done) >= settings.max_rounds:
            return f"{len(done)} refreshes done, refresh.max_rounds is {settings.max_rounds}"
        last = done[-settings.patience :]
        if len(last) < settings.patience or any(
            r.gain >= settings.min_error_reduction for r in last
        ):
            return None
        known_share = last[-1].known_share or 0.0
        if known_share < settings.covered:
            return None
        gains = ", ".join(f"{100 * r.gain:.1f} %" for r in last)
        return (
            f"converged: labels covered {100 * known_share:.1f} % of what the last refresh explored "
            f"(refresh.covered: {100 * settings.covered:g} %), and the last {len(last)} lowered the "
            f"errors by {gains} (refresh.min_error_reduction: {100 * settings.min_error_reduction:g} %)"
        )
