"""Runs of consecutive frames with the same atoms, read from a source of record batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_COLUMNS = ("frame_id", "positions", "numbers", "cell", "pbc")
#: Frames per batch that is read; affects only the memory of the reader.
_READ_FRAMES = 256


class FrameSource(Protocol):
    """Source of frames in batches, such as a trajectory."""

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        """Record batches of at most ``batch_size`` frames with the given columns."""


@dataclass(frozen=True)
class FrameRun:
    """Consecutive frames of the same atoms.

    Attributes
    ----------
    frame_id
        (n_frames,)
    positions, cells
        (n_frames, n_atoms, 3) and (n_frames, 3, 3), Å.
    pbc
        (n_frames, 3)
    numbers
        (n_atoms,) atomic numbers.
    """

    frame_id: NDArray[np.int64]
    positions: NDArray[np.floating[Any]]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    numbers: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.frame_id)

    def __getitem__(self, rows: slice) -> FrameRun:
        return FrameRun(
            self.frame_id[rows],
            self.positions[rows],
            self.cells[rows],
            self.pbc[rows],
            self.numbers,
        )

    @classmethod
    def joined(cls, runs: Sequence[FrameRun]) -> FrameRun:
        """One run of several that have the same atoms."""
        if len(runs) == 1:
            return runs[0]
        return cls(
            np.concatenate([run.frame_id for run in runs]),
            np.concatenate([run.positions for run in runs]),
            np.concatenate([run.cells for run in runs]),
            np.concatenate([run.pbc for run in runs]),
            runs[0].numbers,
        )


def parts_of(frames: FrameSource, max_frames: int, max_atoms: int) -> Iterator[list[FrameRun]]:
    """Runs, grouped into parts of at most ``max_frames`` frames and ``max_atoms`` atoms in total.

    A frame with more atoms is a separate part. The limits of the parts depend on the frames, and
    not on the batches in which they are read.
    """
    part: list[FrameRun] = []
    n_frames = n_atoms = 0
    for batch in frames.iter_batches(_COLUMNS, _READ_FRAMES):
        for run in _runs(batch):
            rest, size = run, len(run.numbers)
            while len(rest):
                n_free = min(
                    max_frames - n_frames, max((max_atoms - n_atoms) // size, int(n_frames == 0))
                )
                if n_free == 0:
                    yield _merged(part)
                    part, n_frames, n_atoms = [], 0, 0
                    continue
                part.append(rest[:n_free])
                n_frames += len(part[-1])
                n_atoms += len(part[-1]) * size
                rest = rest[n_free:]
    if part:
        yield _merged(part)


def _merged(runs: Iterable[FrameRun]) -> list[FrameRun]:
    """Consecutive runs of the same atoms, joined."""
    by_atoms = groupby(runs, key=lambda run: run.numbers.tobytes())
    return [FrameRun.joined(list(same)) for _, same in by_atoms]


def _runs(batch: pa.RecordBatch) -> Iterator[FrameRun]:
    """Split a batch where the atoms change; the arrays are views of its columns."""
    columns = {name: batch.column(name) for name in _COLUMNS}
    for name, column in columns.items():
        if column.null_count:
            raise ValueError(f"column '{name}' contains nulls; it needs a value for each frame")
    ids = columns["frame_id"].to_numpy()
    n_atoms = columns["numbers"].value_lengths().to_numpy()
    n_coordinates = columns["positions"].value_lengths().to_numpy()
    wrong = np.flatnonzero((n_atoms == 0) | (n_coordinates != 3 * n_atoms))
    if len(wrong):
        raise ValueError(
            f"frame {ids[wrong[0]]} has {n_atoms[wrong[0]]} numbers and {n_coordinates[wrong[0]]} "
            "coordinates; it needs one or more atoms with three coordinates each"
        )
    positions, numbers = _values(columns["positions"]), _values(columns["numbers"])
    cells = _values(columns["cell"]).reshape(-1, 3, 3)
    pbc = _values(columns["pbc"]).reshape(-1, 3)
    first = np.concatenate([[0], np.cumsum(n_atoms)])
    edges = np.append(np.flatnonzero(_atoms_change(numbers, n_atoms)), len(ids))
    for start, end in pairwise(edges):
        inside, size = slice(first[start], first[end]), n_atoms[start]
        yield FrameRun(
            ids[start:end],
            positions[3 * inside.start : 3 * inside.stop].reshape(-1, size, 3),
            cells[start:end],
            pbc[start:end],
            numbers[inside][:size],
        )


def _atoms_change(
    numbers: NDArray[np.integer[Any]], n_atoms: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Whether the atoms of each frame differ from those of the previous one; true for the first."""
    change = np.ones(len(n_atoms), dtype=bool)
    if len(n_atoms) > 1:
        # index of the same atom in the previous frame, valid if that has the same number of atoms
        previous = np.arange(len(numbers)) - np.repeat(n_atoms, n_atoms)
        starts = np.cumsum(n_atoms) - n_atoms
        differs = np.logical_or.reduceat(numbers != numbers[previous], starts)
        change[1:] = differs[1:] | (n_atoms[1:] != n_atoms[:-1])
    return change


def _values(lists: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return values
