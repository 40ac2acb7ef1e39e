"""The report on a model: ``report.json`` and its pictures."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
from upath import UPath

from io_managers.folder import FolderIOManager
from mlip_assets.evaluation import ModelReport


class ReportIOManager(FolderIOManager):
    """A folder of JSON and PNG files."""

    value_type: ClassVar[type] = ModelReport
    commit_file: ClassVar[str] = "report.json"

    def describe(self, value: ModelReport, path: UPath) -> dict[str, Any]:
        """Path of the report and size of the folder."""
        return {
            "report_file": dg.MetadataValue.path(str(path / "report.json")),
            "size_bytes": dg.MetadataValue.int(sum(f.stat().st_size for f in path.iterdir())),
        }
