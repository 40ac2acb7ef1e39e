"""Descriptors on disk: a folder of Parquet parts, written as they are computed, read in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import groupby, pairwise
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase.data import atomic_numbers
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.common.files import (
    AnyPath,
    as_path,
    is_local,
    locked,
    write_atomically,
    write_text,
)
from mlip_assets.common.progress import Progress
from mlip_assets.descriptors.frames import n_soap_features
from mlip_assets.descriptors.soap import soap_power_spectrum

_log = getLogger(__name__)
_T = TypeVar("_T")

_SETTINGS_KEY = b"descriptor_settings"
_FRAME_COLUMNS = ("frame_id", "positions", "numbers", "cell", "pbc")
#: Starts with an underscore, so that what reads a folder of Parquet files passes over it.
_MANIFEST = "_manifest.json"

# Memory does not grow with the number of frames: it is a few times these. They are part of what
# decides the bytes, because the kernel reuses neighbour lists within one call.
_PART_FRAMES = 4096
_PART_ATOMS = 1 << 21
_PART_BYTES = 1 << 26
_CALL_ATOMS = 1 << 18
#: Frames read at a time; decides nothing but the memory of the reader.
_READ_FRAMES = 256

#: Features beyond which a compression is worth a word.
_LARGE = 4000


class FrameSource(Protocol):
    """Anything that hands out frames in batches, such as a trajectory."""

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        """Record batches of at most ``batch_size`` frames with the columns asked for."""


def descriptor_schema(n_features: int, settings: Mapping[str, Any]) -> pa.Schema:
    """Schema of a descriptor matrix: ``frame_id`` and a fixed-size list; settings as metadata."""
    # Elements that cannot be null are written and read four times as fast.
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("frame_id", pa.int64(), nullable=False),
            pa.field("descriptor", pa.list_(element, n_features), nullable=False),
        ],
        metadata={_SETTINGS_KEY: json.dumps(dict(settings), sort_keys=True)},
    )


class DescriptorMatrix:
    """Lazy handle on the descriptors (n_frames, n_features) float32 in a folder of Parquet parts.

    The manifest in the folder names the parts in the order of the frames. It is written last: what
    it does not list does not exist, and a folder without one was never finished.

    Parameters
    ----------
    path
        A local folder or any fsspec URL. Nothing is read before it is asked for.

    Raises
    ------
    FileNotFoundError
        On first use, when the folder is not there or was never finished.
    ValueError
        On first use, when a part lacks a column of :func:`descriptor_schema`.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = as_path(path)

    @property
    def n_frames(self) -> int:
        """Number of rows."""
        return sum(self._manifest()["parts"].values())

    @property
    def n_features(self) -> int:
        """Length of one descriptor."""
        return int(self._manifest()["n_features"])

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters the descriptors were computed with; also in every part's schema."""
        settings: dict[str, Any] = self._manifest()["settings"]
        return settings

    @property
    def n_bytes(self) -> int:
        """Size of the parts, bytes."""
        return sum((self.path / name).stat().st_size for name in self._manifest()["parts"])

    def iter_batches(
        self, batch_size: int = _PART_FRAMES
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Frame ids (n,) and descriptors (n, n_features), at most ``batch_size`` rows at a time."""
        for name in self._manifest()["parts"]:
            with _opened(self.path / name) as file:
                for batch in file.iter_batches(batch_size, columns=["frame_id", "descriptor"]):
                    rows = _values(batch.column("descriptor"))
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

    def validate(self) -> None:
        """Check that every part is there and has the schema and the rows of the manifest.

        Raises
        ------
        ValueError
            Naming the part and what is wrong with it.
        """
        manifest = self._manifest()
        wanted = descriptor_schema(manifest["n_features"], manifest["settings"])
        for name, n_frames in manifest["parts"].items():
            part = self.path / name
            if not part.exists():
                raise ValueError(f"{part} is missing; describe the trajectory again")
            with _opened(part) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
            if not schema.equals(wanted, check_metadata=True):
                raise ValueError(
                    f"{part}: schema {schema}, but the manifest says {manifest['n_features']} "
                    f"features and the settings {manifest['settings']}"
                )
            if rows != n_frames:
                raise ValueError(f"{part} holds {rows} frames, {n_frames} were recorded")

    def _manifest(self) -> dict[str, Any]:
        try:
            text = (self.path / _MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.path} has no {_MANIFEST}: the descriptors were never finished; describe the "
                "trajectory again (materialize descriptor_matrix), which keeps the parts that are "
                "there"
            ) from error
        manifest: dict[str, Any] = json.loads(text)
        return manifest


def n_features(settings: DescriptorSettings, n_species: int) -> int:
    """Length of the descriptor of one frame."""
    return n_soap_features(
        n_species,
        settings.n_max,
        settings.l_max,
        compression=settings.compression,
        average=settings.average,
    )


def describe_size(settings: DescriptorSettings, n_species: int) -> str:
    """Say how long a descriptor is and, when it is very long, what would make it shorter."""
    size = n_features(settings, n_species)
    said = f"{size} numbers a frame"
    if size <= _LARGE or settings.compression != "off":
        return said
    shorter = {
        name: n_features(settings.model_copy(update={"compression": name}), n_species)
        for name in ("mu2", "mu1nu1", "crossover")
    }
    choices = ", ".join(f"{name} {length}" for name, length in shorter.items() if length < size)
    return f"{said}; descriptors.compression would make it less: {choices}"


def describe_trajectory(
    frames: FrameSource,
    settings: DescriptorSettings,
    species: Sequence[str],
    path: AnyPath,
    *,
    progress: Progress | None = None,
    n_threads: int = 1,
) -> DescriptorMatrix:
    """Describe every frame, part by part; after a kill, resume behind the last finished part.

    A part is one row group of up to 4096 frames (fewer when frames or descriptors are large). Its
    name holds a hash of its frames, the settings and the code, so it is kept when, and only when,
    it is what would be computed again. An earlier matrix at ``path`` can be read until the new one
    is finished. The bytes do not depend on how the source batches the frames, on ``n_threads``, nor
    on being interrupted.

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
        Folder of the parts and their manifest; remote ones are uploaded part by part.
    progress
        Advanced as frames are described; told of those found already done.
    n_threads
        Threads that share the frames.

    Returns
    -------
    DescriptorMatrix
        Handle on the finished folder; its rows are in the order of the frames.

    Raises
    ------
    ValueError
        A frame that :func:`soap_power_spectrum` refuses, or whose columns do not belong together;
        the message names its ``frame_id``. The parts before it stay.
    """
    ordered = sorted(set(species), key=lambda symbol: atomic_numbers.get(symbol, 0))
    _log.info("SOAP: %s", describe_size(settings, len(ordered)))
    length = n_features(settings, len(ordered))
    schema = descriptor_schema(length, {**settings.stored(), "species": ordered})
    most = max(1, min(_PART_FRAMES, _PART_BYTES // (4 * length)))
    folder = as_path(path)
    hashed = (
        (part, _digest(part, schema, settings.implementation)) for part in _parts(frames, most)
    )
    parts: dict[str, int] = {}
    with _alone_in(folder):
        for index, (part, digest) in enumerate(_read_ahead(hashed)):
            name = f"part-{index:05d}-{digest}.parquet"
            ids = np.concatenate([run.frame_id for run in part])
            parts[name] = len(ids)
            if (folder / name).exists():
                if progress is not None:
                    progress.skip(len(ids))
                continue
            rows = np.empty((len(ids), length), dtype=np.float32)
            start = 0
            for call in _calls(part):
                end = start + len(call)
                rows[start:end] = _describe(call, settings, ordered, n_threads)
                start = end
                if progress is not None:
                    progress.advance(len(call))
            write_part(folder / name, ids, rows, schema)
        return commit(folder, schema, parts)


def write_part(
    path: AnyPath, frame_ids: NDArray[np.int64], rows: NDArray[np.float32], schema: pa.Schema
) -> None:
    """Write one part as one row group, whole or not at all."""
    values = pa.array(rows.ravel())
    lists = pa.FixedSizeListArray.from_arrays(values, type=schema.field("descriptor").type)
    with write_atomically(path) as temporary:
        pq.write_table(
            pa.table([pa.array(frame_ids), lists], schema=schema),
            temporary,
            row_group_size=max(len(rows), 1),
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            column_encoding={"descriptor.list.element": "BYTE_STREAM_SPLIT"},
        )


def commit(folder: AnyPath, schema: pa.Schema, parts: Mapping[str, int]) -> DescriptorMatrix:
    """Make these parts, with their numbers of frames, the matrix; remove what is left of others."""
    matrix = DescriptorMatrix(folder)
    plain = {
        "n_features": schema.field("descriptor").type.list_size,
        "settings": json.loads(schema.metadata[_SETTINGS_KEY]),
        "parts": dict(parts),
    }
    write_text(matrix.path / _MANIFEST, json.dumps(plain, indent=1) + "\n")
    for file in matrix.path.iterdir():
        if file.suffix == ".parquet" and file.name not in parts:
            file.unlink()
    return matrix


@dataclass(frozen=True)
class _Run:
    """Consecutive frames of the same atoms."""

    frame_id: NDArray[np.int64]
    positions: NDArray[np.floating[Any]]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    numbers: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.frame_id)

    def __getitem__(self, rows: slice) -> _Run:
        return _Run(
            self.frame_id[rows],
            self.positions[rows],
            self.cells[rows],
            self.pbc[rows],
            self.numbers,
        )

    @classmethod
    def joined(cls, runs: Sequence[_Run]) -> _Run:
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


def _parts(frames: FrameSource, most: int) -> Iterator[list[_Run]]:
    """Gather runs until a part is full: ``most`` frames, or so many atoms that memory would grow.

    Where a part ends depends on the frames alone, not on the batches they came in.
    """
    part: list[_Run] = []
    rows = atoms = 0
    for batch in frames.iter_batches(_FRAME_COLUMNS, _READ_FRAMES):
        for found in _runs(batch):
            rest, n_atoms = found, len(found.numbers)
            while len(rest):
                room = min(most - rows, max((_PART_ATOMS - atoms) // n_atoms, int(rows == 0)))
                if room == 0:
                    yield _merged(part)
                    part, rows, atoms = [], 0, 0
                    continue
                part.append(rest[:room])
                rows, atoms = rows + len(part[-1]), atoms + len(part[-1]) * n_atoms
                rest = rest[room:]
    if part:
        yield _merged(part)


def _merged(runs: Iterable[_Run]) -> list[_Run]:
    by_atoms = groupby(runs, key=lambda run: run.numbers.tobytes())
    return [_Run.joined(list(same)) for _, same in by_atoms]


def _runs(batch: pa.RecordBatch) -> Iterator[_Run]:
    """Split a batch where the atoms change; the arrays are views of its columns."""
    columns = {name: batch.column(name) for name in _FRAME_COLUMNS}
    for name, column in columns.items():
        if column.null_count:
            raise ValueError(f"column '{name}' holds nulls; every frame needs all of it")
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
        yield _Run(
            ids[start:end],
            positions[3 * inside.start : 3 * inside.stop].reshape(-1, size, 3),
            cells[start:end],
            pbc[start:end],
            numbers[inside][:size],
        )


def _atoms_change(
    numbers: NDArray[np.integer[Any]], n_atoms: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Whether each frame's atoms are others than those of the frame before; true for the first."""
    change = np.ones(len(n_atoms), dtype=bool)
    if len(n_atoms) > 1:
        # the same atom of the frame before, where that has as many
        before = np.arange(len(numbers)) - np.repeat(n_atoms, n_atoms)
        starts = np.cumsum(n_atoms) - n_atoms
        other = np.logical_or.reduceat(numbers != numbers[before], starts)
        change[1:] = other[1:] | (n_atoms[1:] != n_atoms[:-1])
    return change


def _read_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Make the next item in another thread while this one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def _calls(part: Iterable[_Run]) -> Iterator[_Run]:
    """Cut the runs of a part into what the kernel is given at once."""
    for run in part:
        most = max(1, _CALL_ATOMS // len(run.numbers))
        for start in range(0, len(run), most):
            yield run[start : start + most]


def _describe(
    run: _Run, settings: DescriptorSettings, species: Sequence[str], n_threads: int
) -> NDArray[np.floating[Any]]:
    try:
        return soap_power_spectrum(
            run.positions,
            run.cells,
            run.pbc,
            run.numbers,
            species=species,
            **settings.soap_arguments(),
            n_threads=n_threads,
        )
    except ValueError as error:
        first, last = run.frame_id[0], run.frame_id[-1]
        raise ValueError(f"frames {first} to {last} cannot be described: {error}") from error


def _digest(part: Iterable[_Run], schema: pa.Schema, engine: str) -> str:
    """Hash of all that decides the bytes of a part on one machine."""
    digest = hashlib.sha256(schema.metadata[_SETTINGS_KEY])
    digest.update(_code_digest(engine))
    for run in part:
        for array in (run.frame_id, run.numbers, run.positions, run.cells, run.pbc):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@cache
def _code_digest(engine: str) -> bytes:
    """Hash of this package's source and of the library that runs it: parts of two never mix."""
    digest = hashlib.sha256(f"{engine} {version(engine)}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


@contextmanager
def _alone_in(folder: UPath) -> Iterator[None]:
    """Keep two processes from removing each other's parts, where the file system can lock."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait=True) if is_local(folder) else nullcontext():
        yield


@contextmanager
def _opened(part: UPath) -> Iterator[pq.ParquetFile]:
    # pre_buffer would hold the whole file in memory while it is iterated
    with part.open("rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        _check_schema(file.schema_arrow, str(part))
        yield file


def _values(lists: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return values


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
