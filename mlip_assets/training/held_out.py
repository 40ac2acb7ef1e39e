"""What a campaign has held out and what it has trained on, so that no later split crosses the line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ase import Atoms

from mlip_assets.common.files import write_text
from mlip_assets.training.labels import structure_sha256


@dataclass(frozen=True)
class HeldOut:
    """Structures, by their hashes, on the two sides of every split a campaign has made.

    A model tuned from an earlier one has seen what that one was trained on, so neither side may
    ever lend a frame to the other.
    """

    test: frozenset[str] = frozenset()
    """Held out: never trained on, never used to pick an epoch."""
    seen: frozenset[str] = frozenset()
    """Trained on, or used to pick an epoch."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote; empty where no split has been made yet.

        Raises
        ------
        ValueError
            The file is not what :meth:`save` writes.
        """
        if not path.exists():
            return cls()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            test, seen = (frozenset(map(str, record[side])) for side in ("test", "seen"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a record of held-out frames ({error!r}); restore it, or delete it "
                "to draw a new held-out set, with which no earlier error can be compared"
            ) from error
        return cls(test, seen)

    def save(self, path: Path) -> None:
        """Write the record whole or not at all."""
        record = {"test": sorted(self.test), "seen": sorted(self.seen)}
        write_text(path, json.dumps(record, indent=1) + "\n")

    def with_split(self, test: Sequence[Atoms], seen: Sequence[Atoms]) -> HeldOut:
        """The record with the sides of one more split."""
        return HeldOut(
            self.test | {structure_sha256(frame) for frame in test},
            self.seen | {structure_sha256(frame) for frame in seen},
        )
