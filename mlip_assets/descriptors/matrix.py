"""Descriptors on disk: one Parquet file, read in batches and never whole unless asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase.data import atomic_numbers
from numpy.typing import NDArray

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors.soap import n_soap_features, soap_power_spectrum
from mlip_assets.files import AnyPath, as_path, write_atomically
from mlip_assets.progress import Progress

_SETTINGS_KEY = b"descriptor_settings"
_FRAME_COLUMNS = ("frame_id", "positions", "numbers", "cell", "pbc")
_ROW_GROUP = 4096


class FrameSource(Protocol):
    """Anything that hands out frames in batches, such as a trajectory."""

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        """Record batches of at most ``batch_size`` frames with the columns asked for."""


def descriptor_schema(n_features: int, settings: Mapping[str, Any]) -> pa.Schema:
    """Schema of a descriptor matrix: ``frame_id`` and a fixed-size list; settings as metadata."""
    return pa.schema(
        [
            pa.field("frame_id", pa.int64(), nullable=False),
            pa.field("descriptor", pa.list_(pa.float32(), n_features), nullable=False),
        ],
        metadata={_SETTINGS_KEY: json.dumps(dict(settings), sort_keys=True)},
    )


class DescriptorMatrix:
    """Lazy handle on the descriptors (n_frames, n_features) float32 in one Parquet file.

    Parameters
    ----------
    path
        A local path or any fsspec URL. Nothing is read before it is asked for.

    Raises
    ------
    ValueError
        On first use, when the file lacks a column of :func:`descriptor_schema`.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = as_path(path)

    @property
    def n_frames(self) -> int:
        """Number of rows, from the file's footer."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    @property
    def n_features(self) -> int:
        """Length of one descriptor, from the file's footer."""
        with self._opened() as file:
            return int(file.schema_arrow.field("descriptor").type.list_size)

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters the descriptors were computed with, from the file's footer."""
        with self._opened() as file:
            settings: dict[str, Any] = json.loads(file.schema_arrow.metadata[_SETTINGS_KEY])
            return settings

    def iter_batches(
        self, batch_size: int = _ROW_GROUP
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Frame ids (n,) and descriptors (n, n_features), at most ``batch_size`` rows at a time."""
        with self._opened() as file:
            for batch in file.iter_batches(batch_size, columns=["frame_id", "descriptor"]):
                rows = batch.column("descriptor").flatten().to_numpy()
                yield batch.column("frame_id").to_numpy(), rows.reshape(batch.num_rows, -1)

    def to_numpy(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """All frame ids (n_frames,) and descriptors (n_frames, n_features), in memory."""
        n_frames = self.n_frames
        frame_ids = np.empty(n_frames, dtype=np.int64)
        descriptors = np.empty((n_frames, self.n_features), dtype=np.float32)
        start = 0
        for ids, rows in self.iter_batches():
            frame_ids[start : start + len(ids)] = ids
            descriptors[start : start + len(ids)] = rows
            start += len(ids)
        return frame_ids, descriptors

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        # pre_buffer would hold the whole file in memory while it is iterated
        with self.path.open("rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            _check_schema(file.schema_arrow, str(self.path))
            yield file


def describe_trajectory(
    frames: FrameSource,
    settings: DescriptorSettings,
    species: Sequence[str],
    path: AnyPath,
    *,
    progress: Progress | None = None,
    batch_size: int = 256,
    n_threads: int = 1,
) -> DescriptorMatrix:
    """Describe every frame and write the matrix, whole or not at all.

    Parameters
    ----------
    frames
        Its batches need the columns ``frame_id``, ``positions``, ``numbers``, ``cell`` and ``pbc``
        of the frame table; frames may differ in size and composition.
    settings
        SOAP hyper-parameters; stored with the matrix, and so are the ``species``.
    species
        Chemical symbols that the features tell apart.
    path
        Where the Parquet file goes; an earlier one is replaced in one step.
    progress
        Advanced by the frames of each batch.
    batch_size
        Most frames held in memory at a time.
    n_threads
        Workers that share the frames.

    Returns
    -------
    DescriptorMatrix
        Handle on the new file; its rows are in the order of the frames.

    Raises
    ------
    ValueError
        A frame that :func:`soap_power_spectrum` refuses; the message names its ``frame_id``.
    """
    ordered = sorted(set(species), key=lambda symbol: atomic_numbers.get(symbol, 0))
    n_features = n_soap_features(len(ordered), settings.n_max, settings.l_max)
    schema = descriptor_schema(n_features, {**settings.model_dump(), "species": ordered})

    def described() -> Iterator[pa.RecordBatch]:
        for batch in frames.iter_batches(_FRAME_COLUMNS, batch_size):
            for group in _equal_frames(batch):
                rows = pa.array(_describe(group, settings, ordered, n_threads).ravel())
                lists = pa.FixedSizeListArray.from_arrays(rows, n_features)
                yield pa.record_batch([group["frame_id"], lists], schema=schema)
            if progress is not None:
                progress.advance(batch.num_rows)

    with (
        write_atomically(path) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=False, compression="zstd") as writer,
    ):
        for table in _tables_of(_ROW_GROUP, described()):
            writer.write_table(table)
    return DescriptorMatrix(path)


def _equal_frames(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Split a batch into runs of consecutive frames with the same atoms."""
    atoms = batch.column("numbers").to_pylist()
    start = 0
    for _, run in itertools.groupby(atoms):
        length = sum(1 for _ in run)
        yield batch.slice(start, length)
        start += length


def _describe(
    group: pa.RecordBatch, settings: DescriptorSettings, species: Sequence[str], n_threads: int
) -> NDArray[np.float32]:
    n_frames, ids = len(group), group["frame_id"]
    numbers = group["numbers"][0].values.to_numpy()
    try:
        descriptors = soap_power_spectrum(
            _values(group["positions"]).reshape(n_frames, len(numbers), 3),
            _values(group["cell"]).reshape(n_frames, 3, 3),
            _values(group["pbc"]).reshape(n_frames, 3),
            numbers,
            species=species,
            **settings.model_dump(exclude={"engine"}),
            dtype=np.float32,
            n_threads=n_threads,
        )
    except ValueError as error:
        raise ValueError(f"frames {ids[0]} to {ids[-1]} cannot be described: {error}") from error
    return descriptors


def _values(lists: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return values


def _tables_of(n_rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather small batches into tables of at least so many rows; the last may be smaller."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(part) for part in waiting) >= n_rows:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _check_schema(found: pa.Schema, where: str) -> None:
    types: dict[str, Any] = dict(zip(found.names, found.types, strict=True))
    if types.get("frame_id") != pa.int64():
        raise ValueError(f"{where}: column 'frame_id' must be int64, not {types.get('frame_id')}")
    lists = types.get("descriptor", pa.null())
    if not pa.types.is_fixed_size_list(lists) or lists.value_type != pa.float32():
        raise ValueError(
            f"{where}: column 'descriptor' must be a fixed-size list of float32, not {lists}"
        )
    if _SETTINGS_KEY not in (found.metadata or {}):
        raise ValueError(f"{where}: the hyper-parameters are missing from the schema metadata")
