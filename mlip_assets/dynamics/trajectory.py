"""The trajectory: frames on disk as Parquet part-files, read lazily, never all at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.files import AnyPath, as_path, write_atomically

#: ``frame_id = walker number * FRAME_ID_STRIDE + step``: readable, and below 2**53 for a browser.
FRAME_ID_STRIDE = 1_000_000_000
ROW_GROUP_SIZE = 100


def _column(name: str, kind: pa.DataType, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit} if unit else None)


#: One row a frame. Units are in the field metadata; rows of ``cell`` are the lattice vectors.
FRAME_SCHEMA = pa.schema(
    [
        _column("frame_id", pa.int64()),
        _column("walker", pa.string()),
        _column("step", pa.int64()),
        _column("time_fs", pa.float64(), "fs"),
        _column("temperature_K", pa.float64(), "K"),
        _column("target_temperature_K", pa.float64(), "K"),
        pa.field("pressure_GPa", pa.float64(), metadata={"unit": "GPa"}),
        _column("energy_eV", pa.float64(), "eV"),
        _column("cell", pa.list_(pa.float64(), 9), "Å"),
        _column("pbc", pa.list_(pa.bool_(), 3)),
        _column("numbers", pa.list_(pa.uint8())),
        _column("positions", pa.list_(pa.float32()), "Å"),
        _column("forces", pa.list_(pa.float32()), "eV/Å"),
    ]
)
SCALAR_COLUMNS = tuple(FRAME_SCHEMA.names[:8])


@dataclass(frozen=True)
class Part:
    """One part-file of one walker."""

    path: str
    """Relative to the trajectory's root."""
    n_frames: int
    """Frames that count; a file of a longer run may hold more."""
    first_frame_id: int
    last_frame_id: int


@dataclass(frozen=True)
class WalkerReport:
    """How one walker ended."""

    number: int
    name: str
    seed_name: str
    seed_kind: str
    target_temperature_K: float
    replica: int
    n_steps: int
    n_frames: int
    stopped_by: str | None
    """The guard that stopped it, or None when it ran to the end."""


@dataclass(frozen=True)
class Trajectory:
    """A lazy handle on the frames of one campaign.

    Parameters
    ----------
    root
        Folder of the part-files.
    parts
        The files that belong to it, in frame order.
    walkers
        How each walker ended.
    """

    root: UPath
    parts: tuple[Part, ...]
    walkers: tuple[WalkerReport, ...]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return sum(part.n_frames for part in self.parts)

    @property
    def n_bytes(self) -> int:
        """Size of the part-files on disk, bytes."""
        return sum((self.root / part.path).stat().st_size for part in self.parts)

    def iter_batches(
        self, columns: Sequence[str] = tuple(FRAME_SCHEMA.names), batch_size: int = 1024
    ) -> Iterator[pa.RecordBatch]:
        """Yield the frames in order, at most ``batch_size`` at once, in bounded memory."""
        for part in self.parts:
            yield from self._read(part, columns, batch_size)

    def scalars(self) -> pa.Table:
        """Every column but the per-atom ones, all frames: a few dozen bytes a frame."""
        schema = pa.schema([FRAME_SCHEMA.field(name) for name in SCALAR_COLUMNS])
        return pa.Table.from_batches(self.iter_batches(SCALAR_COLUMNS), schema)

    def frames(self, frame_ids: Sequence[int] | NDArray[np.int64]) -> list[Atoms]:
        """Build the frames with these identifiers, in the order asked for.

        ``info`` carries ``frame_id``, ``walker``, ``step``, ``seed_name``, ``seed_kind``,
        ``temperature_K``, ``target_temperature_K`` and the surrogate's ``surrogate_energy_eV``.

        Raises
        ------
        KeyError
            An identifier is not in the trajectory.
        """
        wanted = np.unique(np.asarray(frame_ids, dtype=np.int64))
        reports = {report.name: report for report in self.walkers}
        found: dict[int, Atoms] = {}
        for part in self.parts:
            inside = wanted[(wanted >= part.first_frame_id) & (wanted <= part.last_frame_id)]
            if len(inside) == 0:
                continue
            for batch in self._read(part, FRAME_SCHEMA.names, ROW_GROUP_SIZE):
                here = np.flatnonzero(np.isin(batch.column("frame_id").to_numpy(), inside))
                for row in here:
                    values = {
                        name: batch.column(name)[int(row)].as_py() for name in batch.schema.names
                    }
                    found[values["frame_id"]] = _atoms(values, reports[values["walker"]])
        missing = [int(i) for i in wanted if int(i) not in found]
        if missing:
            raise KeyError(f"frame_id {missing[:5]} not in the trajectory at {self.root}")
        return [found[int(i)] for i in frame_ids]

    def validate(self) -> None:
        """Check that every part exists, has the frame schema and holds enough rows.

        Raises
        ------
        ValueError
            Naming the file and the column.
        """
        for part in self.parts:
            path = self.root / part.path
            if not path.exists():
                raise ValueError(f"{path} is missing; materialize surrogate_trajectory again")
            with path.open("rb") as stream:
                file = pq.ParquetFile(stream)
                require_schema(file.schema_arrow, FRAME_SCHEMA, str(path))
                rows = file.metadata.num_rows
            if rows < part.n_frames:
                raise ValueError(f"{path} holds {rows} frames, {part.n_frames} were recorded")

    def to_json(self) -> str:
        """Everything but the root, as JSON; the parts stay where they are."""
        plain = {"parts": self.parts, "walkers": self.walkers}
        return json.dumps(plain, default=vars, indent=1)

    @classmethod
    def from_json(cls, root: UPath, text: str) -> Trajectory:
        """Restore the inverse of :meth:`to_json`."""
        plain = json.loads(text)
        parts = tuple(Part(**part) for part in plain["parts"])
        return cls(root, parts, tuple(WalkerReport(**walker) for walker in plain["walkers"]))

    def _read(self, part: Part, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        left = part.n_frames
        with (self.root / part.path).open("rb") as stream:
            file = pq.ParquetFile(stream, pre_buffer=False)
            for batch in file.iter_batches(batch_size=size, columns=list(columns)):
                if left <= 0:
                    return
                yield batch.slice(0, left)
                left -= batch.num_rows


def write_part(path: AnyPath, rows: Sequence[dict[str, Any]]) -> None:
    """Write frames as one Parquet part-file, whole or not at all."""
    table = pa.Table.from_pylist(list(rows), schema=FRAME_SCHEMA)
    with write_atomically(path) as temporary:
        write_table(table, temporary)


def write_table(table: pa.Table, path: Path) -> None:
    """Write ``table`` with the encodings that measured best for floating-point rows."""
    lists = [f"{f.name}.list.element" for f in table.schema if pa.types.is_list(f.type)]
    floats = [n for n in lists if "positions" in n or "forces" in n]
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=False,
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") or None,
        row_group_size=ROW_GROUP_SIZE,
    )


def require_schema(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Raise ValueError naming the first column that is missing or of another type."""
    for field in wanted:
        if field.name not in found.names:
            raise ValueError(f"{where}: column '{field.name}' is missing; found {found.names}")
        kind = found.field(field.name).type
        if kind != field.type:
            raise ValueError(f"{where}: column '{field.name}' is {kind}, expected {field.type}")


def _atoms(values: dict[str, Any], report: WalkerReport) -> Atoms:
    return Atoms(
        numbers=values["numbers"],
        positions=np.reshape(values["positions"], (-1, 3)),
        cell=np.reshape(values["cell"], (3, 3)),
        pbc=values["pbc"],
        info={
            "frame_id": values["frame_id"],
            "walker": report.name,
            "step": values["step"],
            "seed_name": report.seed_name,
            "seed_kind": report.seed_kind,
            "temperature_K": values["temperature_K"],
            "target_temperature_K": values["target_temperature_K"],
            "surrogate_energy_eV": values["energy_eV"],
        },
    )


def trajectory_at(
    root: AnyPath, parts: Sequence[Part], walkers: Sequence[WalkerReport]
) -> Trajectory:
    """Make a handle whose parts are in frame order."""
    ordered = sorted(parts, key=lambda part: part.first_frame_id)
    return Trajectory(as_path(root), tuple(ordered), tuple(sorted(walkers, key=lambda w: w.number)))
