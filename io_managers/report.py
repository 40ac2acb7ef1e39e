"""The report on a model: ``report.json`` and its pictures."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
from upath import UPath

from io_managers.folder import FolderIOManager
from mlip_assets.evaluation import ModelReport


class ReportIOManager(FolderIOManager):
    """A folder that can be read without this program."""

    value_type: ClassVar[type] = ModelReport
    commit_file: ClassVar[str] = "report.json"

    def describe(self, value: ModelReport, path: UPath) -> dict[str, Any]:
        """Where the file is, and the size of it all."""
        return {
            "report_file": dg.MetadataValue.path(str(path / "report.json")),
            "size_bytes": dg.MetadataValue.int(sum(f.stat().st_size for f in path.iterdir())),
        }
