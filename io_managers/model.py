"""The trained model: ``model.model``, ``metrics.json`` and the parity data."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
from upath import UPath

from io_managers.folder import FolderIOManager
from mlip_assets.training import TrainedModel


class ModelIOManager(FolderIOManager):
    """A folder whose model file a later campaign can use as its surrogate."""

    value_type: ClassVar[type] = TrainedModel
    commit_file: ClassVar[str] = "metrics.json"

    def describe(self, value: TrainedModel, path: UPath) -> dict[str, Any]:
        """Paths and size of the files."""
        return {
            "model_file": dg.MetadataValue.path(str(path / "model.model")),
            "metrics_file": dg.MetadataValue.path(str(path / "metrics.json")),
            "size_bytes": dg.MetadataValue.int((path / "model.model").stat().st_size),
        }
