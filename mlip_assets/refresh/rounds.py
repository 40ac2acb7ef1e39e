"""Record of the rounds of a campaign: its first run and the refreshes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from mlip_assets.campaign import CampaignError
from mlip_assets.common.files import AnyPath, as_path, write_text

ROUNDS_NAME = "rounds.json"

#: Stored key of each attribute whose name differs from it.
_STORED_KEYS = {"coverage_radius": "known_distance", "covered_fraction": "known_share"}


@dataclass(frozen=True)
class Round:
    """Settings and results of one round; None if they are not known yet."""

    number: int
    """0 is the first run, k the k-th refresh."""
    run_ids: tuple[str, ...] = ()
    """Ids of the Dagster runs: several if a run was interrupted and another resumed the round."""
    explored_with: str | None = None
    """Folder of the promoted model that explores; None: the campaign's surrogate."""
    coverage_radius: float | None = None
    """Distance in the embedding within which a label covers a frame; set by the first run."""
    covered_fraction: float | None = None
    """Fraction of the explored frames that earlier labels cover."""
    n_labels: int | None = None
    """Labels of the campaign at the end of the round."""
    error_ratio: float | None = None
    """Errors of the round's model over those of the promoted one, on the same held-out labels."""
    model: str | None = None
    """Folder of the model in use at the end of the round; None: none is promoted yet."""
    promoted: bool = False
    """Whether that model is the round's own."""
    finished: bool = False

    @property
    def error_reduction(self) -> float:
        """Relative reduction of the errors; 0 if the model was not promoted."""
        return 1 - self.error_ratio if self.promoted and self.error_ratio is not None else 0.0

    def to_record(self) -> dict[str, Any]:
        """The attributes by the keys under which they are stored."""
        return {_STORED_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_record`; keys may also be the names of the attributes."""
        names = {key: name for name, key in _STORED_KEYS.items()}
        values = {names.get(key, key): value for key, value in record.items()}
        return cls(**{**values, "run_ids": tuple(values["run_ids"])})


@dataclass(frozen=True)
class Rounds:
    """All rounds of a campaign, by number from 0."""

    rounds: tuple[Round, ...] = ()

    @classmethod
    def open(cls, path: AnyPath) -> Self:
        """Read the file that :meth:`save` wrote; without a file there are no rounds.

        Raises
        ------
        CampaignError
            The file is not a record of rounds.
        """
        file = as_path(path)
        if not file.exists():
            return cls()
        try:
            records = json.loads(file.read_text(encoding="utf-8"))
            rounds = [Round.from_record(record) for record in records]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CampaignError(
                f"{file} is not a record of rounds ({error!r}); restore it, or delete it to begin "
                "again with the first run, which finds its labels in the ledger"
            ) from error
        return cls(tuple(rounds))

    def save(self, path: AnyPath) -> None:
        """Write the record atomically."""
        records = [record.to_record() for record in self.rounds]
        write_text(path, json.dumps(records, indent=1) + "\n")

    @property
    def next_number(self) -> int:
        """Number of the unfinished round, or of the round after the last."""
        return next((r.number for r in self.rounds if not r.finished), len(self.rounds))

    def number_of(self, run_id: str, *, refreshing: bool) -> int:
        """Number of the round of a run.

        This is the round that the run has begun. For other runs, it is the next round in a refresh,
        and the last round otherwise.
        """
        begun = (r.number for r in reversed(self.rounds) if run_id in r.run_ids)
        last = self.next_number if refreshing else max(len(self.rounds) - 1, 0)
        return next(begun, last)

    def begin(self, number: int, run_id: str, explored_with: str | None) -> Rounds:
        """Copy in which a run begins or resumes a round; a resumed round keeps its model."""
        if number == len(self.rounds):
            return Rounds((*self.rounds, Round(number, (run_id,), explored_with)))
        earlier = self.rounds[number]
        return self.record(number, run_ids=tuple(dict.fromkeys([*earlier.run_ids, run_id])))

    def record(self, number: int, **found: Any) -> Rounds:
        """Copy in which attributes of a round have new values."""
        return Rounds(tuple(replace(r, **found) if r.number == number else r for r in self.rounds))
