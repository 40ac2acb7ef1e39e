"""Frames, descriptors, embeddings and clusters as Parquet; their schemas are checked.

Frames and descriptors are larger than memory. Their assets write them in parts to the path of the
IO manager, and return a lazy handle; the IO manager checks the files and does not copy them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from io_managers.base import TypedIOManager, column_schema
from mlip_assets.common.files import local_copy, write_atomically, write_text
from mlip_assets.descriptors import DescriptorMatrix, descriptor_schema
from mlip_assets.sampling import Clusters, Embedding, PrincipalComponents
from mlip_assets.trajectory import FRAME_SCHEMA, Trajectory, require_schema


class TrajectoryIOManager(TypedIOManager):
    """A manifest beside the part-files of the walkers; a file that it does not list is ignored.

    The manifest is written last and atomically, so a reader finds the complete trajectory either of
    this materialization or of the previous one.
    """

    value_type: ClassVar[type] = Trajectory
    suffix: ClassVar[str] = ".json"

    def write(self, value: Trajectory, path: UPath, contract: dict[str, Any]) -> None:
        """Check every part-file's schema, then write the manifest."""
        _require_place(value.root, path.with_suffix(""))
        value.validate()
        write_text(path, value.to_json())

    def read(self, path: UPath) -> Trajectory:
        """Return a lazy handle; no frame is read."""
        return Trajectory.from_json(path.with_suffix(""), path.read_text(encoding="utf-8"))

    def describe(self, value: Trajectory, path: UPath) -> dict[str, Any]:
        """Frames, bytes and schema."""
        return {
            "dagster/partition_row_count": value.n_frames,
            "dagster/column_schema": column_schema(FRAME_SCHEMA),
            "size_bytes": dg.MetadataValue.int(value.n_bytes),
        }


class DescriptorIOManager(TypedIOManager):
    """The descriptor matrix: a folder of Parquet parts, complete if it contains its manifest."""

    value_type: ClassVar[type] = DescriptorMatrix
    suffix: ClassVar[str] = ""

    def write(self, value: DescriptorMatrix, path: UPath, contract: dict[str, Any]) -> None:
        """Check the path of the folder, and every part against the manifest."""
        _require_place(value.path, path)
        value.validate()

    def read(self, path: UPath) -> DescriptorMatrix:
        """Return a lazy handle; no row is read.

        Raises
        ------
        FileNotFoundError
            The folder is not complete.
        """
        matrix = DescriptorMatrix(path)
        _ = matrix.settings  # reads the manifest
        return matrix

    def describe(self, value: DescriptorMatrix, path: UPath) -> dict[str, Any]:
        """Rows, bytes and schema."""
        schema = descriptor_schema(value.n_features, value.settings)
        return {
            "dagster/partition_row_count": value.n_frames,
            "dagster/column_schema": column_schema(schema),
            "size_bytes": dg.MetadataValue.int(value.n_bytes),
        }


class EmbeddingIOManager(TypedIOManager):
    """``frame_id, pc1 … pck`` as Parquet; the fitted PCA beside it as ``.npz``."""

    value_type: ClassVar[type] = Embedding
    suffix: ClassVar[str] = ".parquet"

    def write(self, value: Embedding, path: UPath, contract: dict[str, Any]) -> None:
        """Write the fitted PCA, then the scores."""
        _write_arrays(path.with_suffix(".npz"), value.pca.to_arrays())
        _write_table(path, pa.table(value.columns()))

    def read(self, path: UPath) -> Embedding:
        """Read the scores and the fitted PCA."""
        table = _read_table(path, pa.schema([("frame_id", pa.int64()), ("pc1", pa.float64())]))
        scores = [table[name].to_numpy() for name in table.column_names if name != "frame_id"]
        pca = self.read_pca(path)
        return Embedding(table["frame_id"].to_numpy(), np.column_stack(scores), pca)

    def read_pca(self, path: UPath) -> PrincipalComponents:
        """Read only the fitted PCA, to project other frames."""
        return PrincipalComponents.from_arrays(_read_arrays(path.with_suffix(".npz")))

    def describe(self, value: Embedding, path: UPath) -> dict[str, Any]:
        """Rows and bytes."""
        return {
            "dagster/partition_row_count": len(value.frame_id),
            "size_bytes": dg.MetadataValue.int(path.stat().st_size),
        }


class ClustersIOManager(TypedIOManager):
    """``frame_id, cluster, distance_to_centre`` as Parquet; the centres beside it as ``.npz``."""

    value_type: ClassVar[type] = Clusters
    suffix: ClassVar[str] = ".parquet"

    _schema: ClassVar[pa.Schema] = pa.schema(
        [("frame_id", pa.int64()), ("cluster", pa.int64()), ("distance_to_centre", pa.float64())]
    )

    def write(self, value: Clusters, path: UPath, contract: dict[str, Any]) -> None:
        """Write the centres, then the members."""
        arrays = {"centres": value.centres, "weights": value.weights}
        _write_arrays(path.with_suffix(".npz"), arrays)
        columns = {name: getattr(value, name) for name in self._schema.names}
        _write_table(path, pa.table(columns, schema=self._schema))

    def read(self, path: UPath) -> Clusters:
        """Read members and centres."""
        table = _read_table(path, self._schema)
        columns = {name: table[name].to_numpy() for name in self._schema.names}
        return Clusters(**columns, **_read_arrays(path.with_suffix(".npz")))

    def describe(self, value: Clusters, path: UPath) -> dict[str, Any]:
        """Rows, bytes and schema."""
        return {
            "dagster/partition_row_count": len(value.frame_id),
            "dagster/column_schema": column_schema(self._schema),
            "size_bytes": dg.MetadataValue.int(path.stat().st_size),
        }


def _require_place(found: UPath, expected: UPath) -> None:
    if found != expected:
        raise ValueError(f"the value is at {found}; this IO manager stores it at {expected}")


def _write_table(path: UPath, table: pa.Table) -> None:
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _read_table(path: UPath, schema: pa.Schema) -> pa.Table:
    with local_copy(path) as local:
        table = pq.read_table(local)
    require_schema(table.schema, schema, str(path))
    return table


def _write_arrays(path: UPath, arrays: dict[str, np.ndarray]) -> None:
    with write_atomically(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: UPath) -> dict[str, np.ndarray]:
    with local_copy(path) as local, np.load(local, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
