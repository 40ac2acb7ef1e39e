"""All Dagster definitions: assets, jobs, sensor, schedule, resources and IO managers."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from io_managers.extxyz import ExtxyzIOManager
from io_managers.label_database import LabelDatabaseIOManager
from io_managers.model import ModelIOManager
from io_managers.parquet import (
    ClustersIOManager,
    DescriptorIOManager,
    EmbeddingIOManager,
    TrajectoryIOManager,
)
from io_managers.report import ReportIOManager
from io_managers.storage import Storage
from mlip_assets.assets.clusters import clusters
from mlip_assets.assets.descriptor_matrix import descriptor_matrix
from mlip_assets.assets.labelled_db import labelled_db
from mlip_assets.assets.model import model
from mlip_assets.assets.model_report import model_report
from mlip_assets.assets.pca_embedding import pca_embedding
from mlip_assets.assets.seeds import seeds
from mlip_assets.assets.selected_frames import selected_frames
from mlip_assets.assets.surrogate_trajectory import surrogate_trajectory
from mlip_assets.automation import (
    campaign_files,
    campaign_job,
    campaign_refresh,
    exploration_job,
    refresh_job,
)
from mlip_assets.release.promotion import PROMOTED_FOLDER
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.earlier import EarlierResults
from resources.mace import MaceResource
from resources.surrogate import SurrogateResource


def resources_at(data: Path, campaigns: Path) -> dict[str, Any]:
    """All resources and IO managers, for a folder of results and a folder of campaign files.

    Both paths are absolute, because workers can have another current folder.
    """
    storage = Storage(root=str(data))
    promoted = str(data / "{campaign}" / PROMOTED_FOLDER)
    return {
        "campaigns": CampaignFolder(folder=str(campaigns), data=str(data)),
        "compute": ComputeResource(),
        "dft": DftResource(ledger_path=str(data / "ledger" / "labels.db")),
        "mace": MaceResource(own_models=promoted),
        "storage": storage,
        "surrogate": SurrogateResource(own_models=promoted),
        "earlier": EarlierResults(storage=storage),
        "structures": ExtxyzIOManager(storage=storage),
        "trajectory": TrajectoryIOManager(storage=storage),
        "descriptors": DescriptorIOManager(storage=storage),
        "embedding": EmbeddingIOManager(storage=storage),
        "clusters": ClustersIOManager(storage=storage),
        "labels": LabelDatabaseIOManager(storage=storage),
        "model": ModelIOManager(storage=storage),
        "report": ReportIOManager(storage=storage),
    }


defs = dg.Definitions(
    assets=[
        seeds,
        surrogate_trajectory,
        descriptor_matrix,
        pca_embedding,
        clusters,
        selected_frames,
        labelled_db,
        model,
        model_report,
    ],
    jobs=[campaign_job, refresh_job, exploration_job],
    sensors=[campaign_files],
    schedules=[campaign_refresh],
    resources=resources_at(
        Path(os.environ.get("MLIP_DATA", "data")).absolute(),
        Path(os.environ.get("MLIP_CAMPAIGNS", "campaigns")).absolute(),
    ),
    executor=dg.in_process_executor,
)
