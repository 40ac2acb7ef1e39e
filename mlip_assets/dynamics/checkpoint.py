"""The checkpoint of a walker: its complete state on disk, from which a run resumes exactly."""

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
class LastValidFrame:
    """The last stored frame, from which a retry starts."""

    step: int
    time_fs: float
    positions: NDArray[np.float64]
    """``(n_atoms, 3)``, Å."""
    cell: NDArray[np.float64]
    """``(3, 3)``, Å; rows are the lattice vectors."""


@dataclass(frozen=True)
class Checkpoint:
    """The complete state of a walker; a resumed run gives the frames of an uninterrupted one.

    The file keeps the keys ``good``, ``good_positions`` and ``good_cell`` for the last valid frame.
    """

    step: int
    positions: NDArray[np.float64]
    """``(n_atoms, 3)``, Å."""
    momenta: NDArray[np.float64]
    """``(n_atoms, 3)``, in the units of ASE."""
    cell: NDArray[np.float64]
    """``(3, 3)``, Å; rows are the lattice vectors."""
    barostat: NDArray[np.float64] | None
    """As :attr:`mlip_assets.dynamics.integrator.Integrator.barostat`."""
    random_state: dict[str, Any]
    energy_eV: float | None
    """At the last check of the structure by the guards."""
    last_valid: LastValidFrame
    parts: tuple[Part, ...] = ()
    events: tuple[GuardEvent, ...] = ()
    stopped_by: str | None = None
    wall_s: float = 0.0

    def save(self, folder: Path) -> None:
        """Write it to the folder of a walker; the file before is replaced atomically."""
        arrays: dict[str, Any] = {
            "positions": self.positions,
            "momenta": self.momenta,
            "cell": self.cell,
            "good_positions": self.last_valid.positions,
            "good_cell": self.last_valid.cell,
        }
        if self.barostat is not None:
            arrays["barostat"] = self.barostat
        plain = {
            "step": self.step,
            "random_state": self.random_state,
            "energy_eV": self.energy_eV,
            "good": [self.last_valid.step, self.last_valid.time_fs],
            "parts": [asdict(part) for part in self.parts],
            "events": [asdict(event) for event in self.events],
            "stopped_by": self.stopped_by,
            "wall_s": self.wall_s,
        }
        with write_atomically(folder / _FILE) as temporary:
            np.savez(temporary, plain=np.array(json.dumps(plain)), **arrays)

    def is_done(self, n_steps: int) -> bool:
        """Whether a walker of ``n_steps`` steps needs no more computing."""
        return self.stopped_by is not None or self.step >= n_steps

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The checkpoint in the folder of a walker; None if there is none."""
        path = folder / _FILE
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain = json.loads(str(arrays.pop("plain")))
        plain["parts"] = tuple(Part(**part) for part in plain["parts"])
        plain["events"] = tuple(GuardEvent(**event) for event in plain["events"])
        step, time_fs = plain.pop("good")
        last_valid = LastValidFrame(
            step, time_fs, arrays.pop("good_positions"), arrays.pop("good_cell")
        )
        arrays.setdefault("barostat", None)
        return cls(last_valid=last_valid, **arrays, **plain)
