"""Descriptors on disk: a folder of Parquet parts and a manifest, read in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.common.files import AnyPath, as_path, write_atomically, write_text

SETTINGS_KEY = b"descriptor_settings"

#: Programs that read a folder of Parquet files ignore names that start with an underscore.
_MANIFEST = "_manifest.json"

_BATCH_FRAMES = 4096


def descriptor_schema(n_features: int, settings: Mapping[str, Any]) -> pa.Schema:
    """Schema of a descriptor matrix: ``frame_id`` and a fixed-size list; settings as metadata."""
    # elements that cannot be null are written and read four times as fast
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("frame_id", pa.int64(), nullable=False),
            pa.field("descriptor", pa.list_(element, n_features), nullable=False),
        ],
        metadata={SETTINGS_KEY: json.dumps(dict(settings), sort_keys=True)},
    )


class DescriptorMatrix:
    """Lazy handle on the descriptors (n_frames, n_features) float32 in a folder of Parquet parts.

    The manifest in the folder lists the parts in the order of the frames. It is written last: a part
    that it does not list is ignored, and a folder without a manifest is incomplete.

    Parameters
    ----------
    path
        A local folder or any fsspec URL. It is read on first use, not here.

    Raises
    ------
    FileNotFoundError
        On first use, if the folder does not exist or is incomplete.
    ValueError
        On first use, if a part lacks a column of :func:`descriptor_schema`.
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
        """Hyper-parameters of the descriptors; the schema of every part contains them too."""
        settings: dict[str, Any] = self._manifest()["settings"]
        return settings

    @property
    def n_bytes(self) -> int:
        """Size of the parts, bytes."""
        return sum((self.path / name).stat().st_size for name in self._manifest()["parts"])

    def iter_batches(
        self, batch_size: int = _BATCH_FRAMES
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Frame ids (n,) and descriptors (n, n_features), at most ``batch_size`` rows at a time."""
        for name in self._manifest()["parts"]:
            with _opened(self.path / name) as file:
                for batch in file.iter_batches(batch_size, columns=["frame_id", "descriptor"]):
                    rows = batch.column("descriptor").flatten().to_numpy(zero_copy_only=False)
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
        """Check that every part exists and has the schema and the number of rows of the manifest.

        Raises
        ------
        ValueError
            Names the part and the problem.
        """
        manifest = self._manifest()
        expected = descriptor_schema(manifest["n_features"], manifest["settings"])
        for name, n_frames in manifest["parts"].items():
            part = self.path / name
            if not part.exists():
                raise ValueError(f"{part} is missing; compute the descriptors again")
            with _opened(part) as file:
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
            if not schema.equals(expected, check_metadata=True):
                raise ValueError(
                    f"{part}: schema {schema}, but the manifest has {manifest['n_features']} "
                    f"features and the settings {manifest['settings']}"
                )
            if n_rows != n_frames:
                raise ValueError(f"{part} contains {n_rows} frames, but the manifest {n_frames}")

    def _manifest(self) -> dict[str, Any]:
        try:
            text = (self.path / _MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.path} has no {_MANIFEST}: its descriptors are incomplete; compute them again "
                "(materialize descriptor_matrix), which keeps the parts that exist"
            ) from error
        manifest: dict[str, Any] = json.loads(text)
        return manifest


def write_part(
    path: AnyPath, frame_ids: NDArray[np.int64], rows: NDArray[np.float32], schema: pa.Schema
) -> None:
    """Write one part, as one row group, atomically.

    Parameters
    ----------
    path
        File of the part.
    frame_ids, rows
        (n,) ids and (n, n_features) descriptors.
    schema
        Of :func:`descriptor_schema`.
    """
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
    """Write the manifest of a matrix, then delete the parts that it does not list.

    Parameters
    ----------
    folder
        Folder of the parts.
    schema
        Schema of all parts.
    parts
        Number of frames in each part, by file name, in the order of the frames.
    """
    matrix = DescriptorMatrix(folder)
    manifest = {
        "n_features": schema.field("descriptor").type.list_size,
        "settings": json.loads(schema.metadata[SETTINGS_KEY]),
        "parts": dict(parts),
    }
    write_text(matrix.path / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
    for file in matrix.path.iterdir():
        if file.suffix == ".parquet" and file.name not in parts:
            file.unlink()
    return matrix


@contextmanager
def _opened(part: UPath) -> Iterator[pq.ParquetFile]:
    # with pre_buffer, the whole file would be in memory during the iteration
    with part.open("rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        _check_schema(file.schema_arrow, str(part))
        yield file


def _check_schema(found: pa.Schema, where: str) -> None:
    types: dict[str, Any] = dict(zip(found.names, found.types, strict=True))
    if types.get("frame_id") != pa.int64():
        raise ValueError(f"{where}: column 'frame_id' must be int64, not {types.get('frame_id')}")
    lists = types.get("descriptor", pa.null())
    if not pa.types.is_fixed_size_list(lists) or lists.value_type != pa.float32():
        raise ValueError(
            f"{where}: column 'descriptor' must be a fixed-size list of float32, not {lists}"
        )
    if SETTINGS_KEY not in (found.metadata or {}):
        raise ValueError(f"{where}: the hyper-parameters are missing from the schema metadata")
