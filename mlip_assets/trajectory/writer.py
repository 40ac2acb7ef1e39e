"""The writer of the frame table: Parquet part-files, each complete on disk or absent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlip_assets.common.files import AnyPath, write_atomically
from mlip_assets.trajectory.part import Part
from mlip_assets.trajectory.schema import FRAME_SCHEMA, ROW_GROUP_SIZE

#: A part-file is full at this number of frames, or of bytes in memory.
PART_FRAMES = 1000
PART_BYTES = 32 * 2**20
_BYTES_PER_ATOM = 25  # number, position and force


class PartWriter:
    """Appends the frames of one walker to part-files.

    Each :meth:`flush` rewrites the last file atomically with the frames appended since, until the
    file is full. A reader with an earlier frame count finds the same frames in the longer file. A
    process that is killed between a flush and the checkpoint that records it therefore loses only
    the frames after the checkpoint before.

    Parameters
    ----------
    folder
        Folder of the files; paths in parts are relative to its parent.
    parts
        The parts that an earlier run wrote and recorded.
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
            self._nbytes = _BYTES_PER_ATOM * len(pc.list_flatten(self._table["numbers"]))

    def append(self, row: dict[str, Any]) -> None:
        """Add one frame: the columns of ``FRAME_SCHEMA``, with arrays for the lists."""
        self._rows.append(row)
        self._nbytes += _BYTES_PER_ATOM * len(row["numbers"])

    @property
    def is_full(self) -> bool:
        """Whether the frames in memory fill a part-file, so that a flush is due."""
        n_frames = self._table.num_rows + len(self._rows)
        return n_frames >= PART_FRAMES or self._nbytes >= PART_BYTES

    def flush(self) -> tuple[Part, ...]:
        """Write the frames that are not yet on disk; return all parts of the walker."""
        if self._rows:
            self._table = pa.concat_tables([self._table, frame_table(self._rows)])
            self._rows = []
            write_part(self._path, self._table)
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


def frame_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A table of frames; arrays are joined without a Python object per number."""
    return pa.table(
        [_column_of(kind, [row[kind.name] for row in rows]) for kind in FRAME_SCHEMA],
        schema=FRAME_SCHEMA,
    )


def write_part(path: AnyPath, table: pa.Table) -> None:
    """Write frames as one Parquet part-file, complete or not at all.

    Positions and forces are encoded by byte stream split, which compresses floating-point values
    best in a measurement on such frames.
    """
    lists = [f"{f.name}.list.element" for f in table.schema if pa.types.is_list(f.type)]
    floats = [n for n in lists if "positions" in n or "forces" in n]
    with write_atomically(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") or None,
            row_group_size=ROW_GROUP_SIZE,
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
