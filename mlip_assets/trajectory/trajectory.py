"""The trajectory: a lazy handle on the frames of a campaign, stored as Parquet part-files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.common.files import AnyPath, as_path, write_atomically
from mlip_assets.trajectory.part import Part
from mlip_assets.trajectory.schema import (
    FRAME_SCHEMA,
    ROW_GROUP_SIZE,
    SCALAR_COLUMNS,
    require_schema,
)
from mlip_assets.trajectory.walker_report import WalkerReport

if TYPE_CHECKING:
    import pandas as pd

#: Columns whose name has no unit -> their names in a DataFrame.
_DATAFRAME_NAMES = {"cell": "cell_A", "positions": "positions_A", "forces": "forces_eV_per_A"}


@dataclass(frozen=True)
class Trajectory:
    """A lazy handle on the frames of one campaign.

    Parameters
    ----------
    root
        Folder of the part-files.
    parts
        Its part-files, in frame order.
    walkers
        The final state of each walker.
    """

    root: UPath
    parts: tuple[Part, ...]
    walkers: tuple[WalkerReport, ...]

    @classmethod
    def from_parts(
        cls, root: AnyPath, parts: Sequence[Part], walkers: Sequence[WalkerReport]
    ) -> Trajectory:
        """A handle with parts in frame order and walkers by number."""
        return cls(
            as_path(root),
            tuple(sorted(parts, key=lambda part: part.first_frame_id)),
            tuple(sorted(walkers, key=lambda walker: walker.number)),
        )

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
        """Yield the frames in frame order, at most ``batch_size`` per batch, in bounded memory."""
        for part in self.parts:
            yield from self._read(part, columns, batch_size)

    def scalars(self) -> pa.Table:
        """The columns with one value per frame, of all frames: a few dozen bytes per frame."""
        schema = pa.schema([FRAME_SCHEMA.field(name) for name in SCALAR_COLUMNS])
        return pa.Table.from_batches(self.iter_batches(SCALAR_COLUMNS), schema)

    def column(self, name: str, frame_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values (n,) of one of the scalar columns for these frames; NaN: no value."""
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
            Identifiers, which give the order of the rows; or a slice of all frames in frame order,
            such as ``slice(None, None, 10)`` for every tenth frame; None: all. Other frames are not
            kept in memory.

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
        """Build the frames with these identifiers, in the given order.

        ``info`` holds ``frame_id``, ``walker``, ``step``, ``seed_name``, ``seed_kind``,
        ``temperature_K``, ``target_temperature_K`` and ``surrogate_energy_eV``.

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
            Identifiers; None: all. Files and row groups without any of them are not read.
        with_results
            Attach energy and forces of the surrogate as results.

        Raises
        ------
        KeyError
            An identifier is not in the trajectory; raised after all other frames are yielded.
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

        Memory is bounded. The frames are in frame order; their number is returned.

        Raises
        ------
        ValueError
            The suffix is none of these.
        """
        target = as_path(path)
        if target.suffix not in (".extxyz", ".xyz", ".traj"):
            raise ValueError(f"{target}: export supports .extxyz and .traj, not '{target.suffix}'")
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
        """Check that each part exists, has the frame schema and has enough rows.

        Raises
        ------
        ValueError
            A check failed; the message gives the file and the column.
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
                raise ValueError(f"{path} has {rows} frames, {part.n_frames} were recorded")

    def to_json(self) -> str:
        """All fields except the root, as JSON; the part-files are not changed."""
        plain = {"parts": self.parts, "walkers": self.walkers}
        return json.dumps(plain, default=vars, indent=1)

    @classmethod
    def from_json(cls, root: UPath, text: str) -> Trajectory:
        """Inverse of :meth:`to_json`."""
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
        """The frames with these identifiers, in frame order, one row group at a time; None: all.

        Raises
        ------
        KeyError
            An identifier is not in the trajectory; raised after all other frames are yielded.
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
        """The frames of a part; with ``frame_ids``, only of the row groups that contain any."""
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


def _series(name: str, column: pa.ChunkedArray) -> Any:
    """A column for pandas; one array per frame for a column of lists."""
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
