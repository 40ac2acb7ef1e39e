"""Where a walker stands, on disk: enough to go on as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.files import write_atomically
from mlip_assets.trajectory import GuardEvent, Part

_FILE = "checkpoint.npz"


@dataclass(frozen=True)
class Good:
    """The last stored frame, from which a retry goes on."""

    step: int
    time_fs: float
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]


@dataclass(frozen=True)
class Checkpoint:
    """Where a walker stands: enough to go on as if it had never stopped."""

    step: int
    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]
    barostat: NDArray[np.float64] | None
    random_state: dict[str, Any]
    energy_eV: float | None
    """At the last look of the guards."""
    good: Good
    parts: tuple[Part, ...] = ()
    events: tuple[GuardEvent, ...] = ()
    stopped_by: str | None = None
    wall_s: float = 0.0

    def save(self, folder: Path) -> None:
        """Write it to the folder of a walker, over the one before, whole or not at all."""
        arrays: dict[str, Any] = {
            "positions": self.positions,
            "momenta": self.momenta,
            "cell": self.cell,
            "good_positions": self.good.positions,
            "good_cell": self.good.cell,
        }
        if self.barostat is not None:
            arrays["barostat"] = self.barostat
        plain = {
            "step": self.step,
            "random_state": self.random_state,
            "energy_eV": self.energy_eV,
            "good": [self.good.step, self.good.time_fs],
            "parts": [asdict(part) for part in self.parts],
            "events": [asdict(event) for event in self.events],
            "stopped_by": self.stopped_by,
            "wall_s": self.wall_s,
        }
        with write_atomically(folder / _FILE) as temporary:
            np.savez(temporary, plain=np.array(json.dumps(plain)), **arrays)

    def is_done(self, n_steps: int) -> bool:
        """Whether nothing is left to compute of so many steps."""
        return self.stopped_by is not None or self.step >= n_steps

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The one that was saved in the folder of a walker, if any."""
        path = folder / _FILE
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain = json.loads(str(arrays.pop("plain")))
        plain["parts"] = tuple(Part(**part) for part in plain["parts"])
        plain["events"] = tuple(GuardEvent(**event) for event in plain["events"])
        step, time_fs = plain.pop("good")
        good = Good(step, time_fs, arrays.pop("good_positions"), arrays.pop("good_cell"))
        arrays.setdefault("barostat", None)
        return cls(good=good, **arrays, **plain)
