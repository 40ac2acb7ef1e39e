"""Labels from density-functional theory: each computed once, committed at once, never lost."""

from __future__ import annotations

from mlip_assets.labelling.database import Failure, LabelledDatabase
from mlip_assets.labelling.engines import Calculation, DftEngine, EngineError, NotConvergedError
from mlip_assets.labelling.gpaw import GpawEngine
from mlip_assets.labelling.labels import free_atom, label_frames
from mlip_assets.labelling.ledger import Label, LabelLedger

__all__ = [
    "Calculation",
    "DftEngine",
    "EngineError",
    "Failure",
    "GpawEngine",
    "Label",
    "LabelLedger",
    "LabelledDatabase",
    "NotConvergedError",
    "free_atom",
    "label_frames",
]
