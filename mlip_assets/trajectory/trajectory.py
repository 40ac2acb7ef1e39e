"""The trajectory: frames on disk as Parquet part-files, read lazily, never all at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.common.files import AnyPath, as_path, write_atomically

if TYPE_CHECKING:
    import pandas as pd

#: Walkers a round of a campaign may have; those of later rounds are numbered on from there.
WALKERS_A_ROUND = 100_000
#: ``frame_id = walker number * FRAME_ID_STRIDE + step``: readable, and below 2**53 for a browser.
FRAME_ID_STRIDE = 1_000_000_000
#: Rounds a campaign may have, so that identifiers stay below 2**53.
MAX_ROUNDS = 90
ROW_GROUP_SIZE = 100
#: A part-file is full, and the next one begun, at so many frames or bytes of them in memory.
PART_FRAMES = 1000
PART_BYTES = 32 * 2**20
_BYTES_AN_ATOM = 25  # number, position and force


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
        pa.field("force_spread_eV_per_A", pa.float64(), metadata={"unit": "eV/Å"}),
        _column("cell", pa.list_(pa.float64(), 9), "Å"),
        _column("pbc", pa.list_(pa.bool_(), 3)),
        _column("numbers", pa.list_(pa.uint8())),
        _column("positions", pa.list_(pa.float32()), "Å"),
        _column("forces", pa.list_(pa.float32()), "eV/Å"),
    ]
)
SCALAR_COLUMNS = tuple(FRAME_SCHEMA.names[:9])
#: Columns whose name has no unit -> their names in a DataFrame.
_DATAFRAME_NAMES = {"cell": "cell_A", "positions": "positions_A", "forces": "forces_eV_per_A"}


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
class GuardEvent:
    """A guard that a walker broke."""

    step: int
    time_fs: float
    reason: str
    """Name of the guard."""
    detail: str
    target_temperature_K: float
    timestep_fs: float
    resumed_from_step: int | None
    """The good frame a retry went on from; None when the walker stopped."""
    resumed_from_fs: float = 0.0


@dataclass(frozen=True)
class WalkerReport:
    """How one walker ended."""

    number: int
    name: str
    seed_name: str
    seed_kind: str
    target_temperature_K: float
    """At its last step."""
    replica: int
    n_steps: int
    n_frames: int
    stopped_by: str | None
    """The guard that stopped it, or None when it ran to the end."""
    conditions: str = ""
    """Ensemble, temperatures and pressure, readable."""
    n_atoms: int = 0
    events: tuple[GuardEvent, ...] = ()
    wall_s: float = field(default=0.0, compare=False)
    """Time spent on its steps, in all runs together."""

    @property
    def steps_per_s(self) -> float:
        """Steps a second; 0 when nothing was timed."""
        return self.n_steps / self.wall_s if self.wall_s > 0 else 0.0

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> WalkerReport:
        """Restore from what JSON holds."""
        events = tuple(GuardEvent(**event) for event in plain.get("events", ()))
        return cls(**{**plain, "events": events})


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

    def column(self, name: str, frame_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Value (n,) of one of the scalar columns for each of these frames; NaN: not known."""
        scalars = self.scalars()
        ids, values = (scalars[key].to_numpy() for key in ("frame_id", name))
        by_id = np.argsort(ids)
        found: NDArray[np.float64] = values[by_id[np.searchsorted(ids[by_id], frame_ids)]]
        return found

    def to_dataframe(
        self,
        columns: Sequence[str] = SCALAR_COLUMNS,
        frame_ids: Sequence[int] | NDArray[np.int64] | slice | None = None,
    ) -> pd.DataFrame:
        """All frames or a part of them as a pandas table, one row per frame.

        Parameters
        ----------
        columns
            Names of ``FRAME_SCHEMA``; by default those with one value per frame. Where such a name
            has no unit, the column of the result has: ``cell`` is ``cell_A`` (a (3, 3) array per
            frame), ``positions`` is ``positions_A`` and ``forces`` is ``forces_eV_per_A`` ((n_atoms,
            3) arrays).
        frame_ids
            Identifiers, whose order the rows have; or a slice of all frames in frame order, such as
            ``slice(None, None, 10)`` for every tenth frame; None: all. Other frames are not kept in
            memory.

        Raises
        ------
        KeyError
            A column or an identifier is not in the trajectory.
        """
        import pandas as pd

        if unknown := [name for name in columns if name not in FRAME_SCHEMA.names]:
            raise KeyError(
                f"columns {unknown}: not in the frame table, which has {FRAME_SCHEMA.names}"
            )
        if isinstance(frame_ids, slice):
            frame_ids = self._frame_ids()[frame_ids]
        schema = pa.schema([f for f in FRAME_SCHEMA if f.name in {"frame_id", *columns}])
        table = pa.Table.from_batches(self._selected(schema.names, frame_ids), schema)
        if frame_ids is not None:
            table = table.take(np.searchsorted(table["frame_id"].to_numpy(), frame_ids))
        return pd.DataFrame({_DATAFRAME_NAMES.get(n, n): _series(n, table[n]) for n in columns})

    def frames(self, frame_ids: Sequence[int] | NDArray[np.int64]) -> list[Atoms]:
        """Build the frames with these identifiers, in the order asked for.

        ``info`` carries ``frame_id``, ``walker``, ``step``, ``seed_name``, ``seed_kind``,
        ``temperature_K``, ``target_temperature_K`` and the surrogate's ``surrogate_energy_eV``.

        Raises
        ------
        KeyError
            An identifier is not in the trajectory.
        """
        found = {atoms.info["frame_id"]: atoms for atoms in self.iter_frames(frame_ids)}
        return [found[int(i)] for i in frame_ids]

    def iter_frames(
        self,
        frame_ids: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        with_results: bool = False,
    ) -> Iterator[Atoms]:
        """Yield frames in frame order, one row group at a time in memory.

        Parameters
        ----------
        frame_ids
            Which; None for all. Files and row groups without any of them are not read.
        with_results
            Attach the surrogate's energy and forces as results.

        Raises
        ------
        KeyError
            Once all others are yielded: an identifier is not in the trajectory.
        """
        reports = {report.name: report for report in self.walkers}
        for batch in self._selected(FRAME_SCHEMA.names, frame_ids):
            for row in range(batch.num_rows):
                values = {n: _value(batch.column(n)[row]) for n in batch.schema.names}
                yield _atoms(values, reports[values["walker"]], with_results=with_results)

    def export(
        self, path: AnyPath, frame_ids: Sequence[int] | NDArray[np.int64] | None = None
    ) -> int:
        """Write frames, with energies and forces, as extended XYZ or ASE ``.traj`` by the suffix.

        Memory is bounded. The frames come in frame order; their number is returned.

        Raises
        ------
        ValueError
            Another suffix.
        """
        target = as_path(path)
        if target.suffix not in (".extxyz", ".xyz", ".traj"):
            raise ValueError(f"{target}: export knows .extxyz and .traj, not '{target.suffix}'")
        n_frames, frames = 0, self.iter_frames(frame_ids, with_results=True)
        with write_atomically(target) as temporary:
            if target.suffix == ".traj":
                from ase.io.trajectory import TrajectoryWriter

                with TrajectoryWriter(temporary) as writer:
                    for atoms in frames:
                        writer.write(atoms)
                        n_frames += 1
            else:
                from ase.io.extxyz import write_extxyz

                with temporary.open("w", encoding="utf-8") as stream:
                    for atoms in frames:
                        write_extxyz(stream, [atoms])
                        n_frames += 1
        return n_frames

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
        return cls(root, parts, tuple(map(WalkerReport.from_plain, plain["walkers"])))

    def _frame_ids(self) -> NDArray[np.int64]:
        """Identifiers (n_frames,) of all frames."""
        batches = [batch.column("frame_id").to_numpy() for batch in self.iter_batches(["frame_id"])]
        return np.concatenate([np.empty(0, dtype=np.int64), *batches])

    def _selected(
        self, columns: Sequence[str], frame_ids: Sequence[int] | NDArray[np.int64] | None
    ) -> Iterator[pa.RecordBatch]:
        """The frames with these identifiers, in frame order, a row group at a time; None: all.

        Raises
        ------
        KeyError
            Once all others are yielded: an identifier is not in the trajectory.
        """
        if frame_ids is None:
            yield from self.iter_batches(columns, ROW_GROUP_SIZE)
            return
        wanted = np.unique(np.asarray(frame_ids, dtype=np.int64))
        found = np.zeros(len(wanted), dtype=bool)
        for part in self.parts:
            low, high = np.searchsorted(wanted, [part.first_frame_id, part.last_frame_id + 1])
            if low == high:
                continue
            inside = wanted[low:high]
            for batch in self._read(part, columns, ROW_GROUP_SIZE, inside):
                ids = batch.column("frame_id").to_numpy()
                kept = np.isin(ids, inside)
                found[low:high] |= np.isin(inside, ids)
                yield batch.filter(pa.array(kept))
        if not found.all():
            missing = wanted[~found][:5].tolist()
            raise KeyError(f"frame_id {missing} not in the trajectory at {self.root}")

    def _read(
        self,
        part: Part,
        columns: Sequence[str],
        size: int,
        frame_ids: NDArray[np.int64] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The frames of a part; with ``frame_ids``, only of the row groups that hold any."""
        with (self.root / part.path).open("rb") as stream:
            file = pq.ParquetFile(stream, pre_buffer=False)
            left = part.n_frames
            if frame_ids is None:
                for batch in file.iter_batches(batch_size=size, columns=list(columns)):
                    if left <= 0:
                        return
                    yield batch.slice(0, left)
                    left -= batch.num_rows
                return
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                ids = group.column(0).statistics
                near = np.searchsorted(frame_ids, [ids.min, ids.max + 1])
                if left > 0 and near[0] < near[1]:
                    table = file.read_row_group(number, columns=list(columns))
                    yield from table.slice(0, left).to_batches()
                left -= group.num_rows


class PartWriter:
    """Appends the frames of one walker to part-files.

    Every :meth:`flush` rewrites the last file with what was appended since, atomically, until it
    is full. A reader that knows how many frames counted before finds the same ones in the longer
    file, so a kill between a flush and the checkpoint that records it does no harm.

    Parameters
    ----------
    folder
        Where the files go; paths in parts are relative to its parent.
    parts
        What an earlier run wrote and recorded.
    """

    def __init__(self, folder: Path, parts: Sequence[Part] = ()) -> None:
        self._folder = folder
        self._closed = tuple(parts)
        self._table = FRAME_SCHEMA.empty_table()
        self._rows: list[dict[str, Any]] = []
        self._nbytes = 0
        if parts and parts[-1].n_frames < PART_FRAMES:
            *closed, last = parts
            self._closed = tuple(closed)
            self._table = pq.read_table(folder.parent / last.path).slice(0, last.n_frames)
            self._nbytes = _BYTES_AN_ATOM * len(pc.list_flatten(self._table["numbers"]))

    def append(self, row: dict[str, Any]) -> None:
        """Take one frame: the columns of ``FRAME_SCHEMA``, arrays for the lists."""
        self._rows.append(row)
        self._nbytes += _BYTES_AN_ATOM * len(row["numbers"])

    @property
    def is_full(self) -> bool:
        """Whether the frames in memory fill a part-file, so that it is time to flush."""
        n_frames = self._table.num_rows + len(self._rows)
        return n_frames >= PART_FRAMES or self._nbytes >= PART_BYTES

    def flush(self) -> tuple[Part, ...]:
        """Write what is not on disk yet; all parts of the walker, to be recorded."""
        if self._rows:
            self._table = pa.concat_tables([self._table, frame_table(self._rows)])
            self._rows = []
            with write_atomically(self._path) as temporary:
                write_table(self._table, temporary)
        if self._table.num_rows == 0:
            return self._closed
        parts = (*self._closed, self._open_part())
        if self.is_full:
            self._closed, self._table, self._nbytes = parts, FRAME_SCHEMA.empty_table(), 0
        return parts

    @property
    def _path(self) -> Path:
        return self._folder / f"part-{len(self._closed):05d}.parquet"

    def _open_part(self) -> Part:
        ids = self._table["frame_id"]
        path = f"{self._folder.name}/{self._path.name}"
        return Part(path, self._table.num_rows, ids[0].as_py(), ids[-1].as_py())


def round_of(frame_id: int) -> int:
    """The round of its campaign that explored a frame."""
    return frame_id // (WALKERS_A_ROUND * FRAME_ID_STRIDE)


def cut_parts(parts: Sequence[Part], n_frames: int, frame_id_step: int) -> tuple[Part, ...]:
    """The first ``n_frames`` of parts whose frame identifiers are evenly spaced."""
    kept: list[Part] = []
    for part in parts:
        count = min(part.n_frames, n_frames - sum(p.n_frames for p in kept))
        if count > 0:
            last = part.first_frame_id + (count - 1) * frame_id_step
            kept.append(replace(part, n_frames=count, last_frame_id=last))
    return tuple(kept)


def frame_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Frames as a table, their arrays joined without a Python object a number."""
    return pa.table(
        [_column_of(kind, [row[kind.name] for row in rows]) for kind in FRAME_SCHEMA],
        schema=FRAME_SCHEMA,
    )


def _column_of(kind: pa.Field, values: list[Any]) -> pa.Array:
    if pa.types.is_fixed_size_list(kind.type):
        flat = pa.array(np.concatenate(values), kind.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind.type)
    if pa.types.is_list(kind.type):
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        flat = pa.array(np.concatenate(values), kind.type.value_type)
        return pa.ListArray.from_arrays(offsets, flat, type=kind.type)
    return pa.array(values, kind.type)


def write_part(path: AnyPath, rows: Sequence[dict[str, Any]]) -> None:
    """Write frames as one Parquet part-file, whole or not at all."""
    with write_atomically(path) as temporary:
        write_table(frame_table(rows), temporary)


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
    for column in wanted:
        if column.name not in found.names:
            raise ValueError(f"{where}: column '{column.name}' is missing; found {found.names}")
        kind = found.field(column.name).type
        if kind != column.type:
            raise ValueError(f"{where}: column '{column.name}' is {kind}, expected {column.type}")


def _series(name: str, column: pa.ChunkedArray) -> Any:
    """A column as pandas has it; an array per frame where there are several values."""
    if not pa.types.is_nested(column.type):
        return column.to_pandas()
    shape = (-1, 3) if name in _DATAFRAME_NAMES else (-1,)
    return [np.reshape(_value(value), shape) for value in column]


def _value(scalar: pa.Scalar) -> Any:
    is_list = isinstance(scalar, pa.ListScalar)
    return scalar.values.to_numpy(zero_copy_only=False) if is_list else scalar.as_py()


def _atoms(values: dict[str, Any], report: WalkerReport, *, with_results: bool) -> Atoms:
    atoms = Atoms(
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
    if with_results:
        from ase.calculators.singlepoint import SinglePointCalculator

        forces = np.reshape(values["forces"], (-1, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=values["energy_eV"], forces=forces)
    return atoms


def trajectory_at(
    root: AnyPath, parts: Sequence[Part], walkers: Sequence[WalkerReport]
) -> Trajectory:
    """Make a handle whose parts are in frame order."""
    ordered = sorted(parts, key=lambda part: part.first_frame_id)
    return Trajectory(as_path(root), tuple(ordered), tuple(sorted(walkers, key=lambda w: w.number)))
