"""The label database: ``labels.db`` (ASE, SQLite) and ``labels.extxyz`` with MACE's keys."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
from upath import UPath

from io_managers.folder import FolderIOManager
from mlip_assets.labelling import LabelledDatabase


class LabelDatabaseIOManager(FolderIOManager):
    """The labels of one campaign; the ledger, from which they are copied, has those of all."""

    value_type: ClassVar[type] = LabelledDatabase
    commit_file: ClassVar[str] = "labels.db"

    def describe(self, value: LabelledDatabase, path: UPath) -> dict[str, Any]:
        """Count, size, and path of the export for other programs."""
        return {
            "dagster/partition_row_count": len(value.labelled),
            "extxyz": dg.MetadataValue.path(str(path / "labels.extxyz")),
            "size_bytes": dg.MetadataValue.int(sum(f.stat().st_size for f in path.iterdir())),
        }
