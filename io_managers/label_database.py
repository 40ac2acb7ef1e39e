"""The label database: ``labels.db`` (ASE, SQLite) and ``labels.extxyz`` with MACE's keys."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
from upath import UPath

from io_managers.folder import FolderIOManager
from mlip_assets.labelling import LabelledDatabase


class LabelDatabaseIOManager(FolderIOManager):
    """A campaign's own copy of its labels; the ledger behind it is shared by all campaigns."""

    value_type: ClassVar[type] = LabelledDatabase
    commit_file: ClassVar[str] = "labels.db"

    def describe(self, value: LabelledDatabase, path: UPath) -> dict[str, Any]:
        """Count, size, and where the export for other programs lies."""
        return {
            "dagster/partition_row_count": len(value.labelled),
            "extxyz": dg.MetadataValue.path(str(path / "labels.extxyz")),
            "size_bytes": dg.MetadataValue.int(sum(f.stat().st_size for f in path.iterdir())),
        }
