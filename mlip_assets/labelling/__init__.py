"""Labels from density-functional theory: each is computed once and stored when it is finished.

``label_frames`` is the entry point: ``gates`` select the frames, ``scheduler`` takes labels from
``ledger/`` or has them computed by ``engines/``, ``database`` holds the result.
"""

from __future__ import annotations

from mlip_assets.labelling.database import Failure, LabelledDatabase, MixedSettingsError
from mlip_assets.labelling.dimers import dimers
from mlip_assets.labelling.engines import (
    ENGINES,
    Attempt,
    Calculation,
    DftEngine,
    EmtEngine,
    EngineError,
    EspressoEngine,
    GpawEngine,
    KilledError,
    NotConvergedError,
    VaspEngine,
)
from mlip_assets.labelling.label_frames import isolated_atom, label_frames
from mlip_assets.labelling.ledger import Label, LabelLedger

__all__ = [
    "ENGINES",
    "Attempt",
    "Calculation",
    "DftEngine",
    "EmtEngine",
    "EngineError",
    "EspressoEngine",
    "Failure",
    "GpawEngine",
    "KilledError",
    "Label",
    "LabelLedger",
    "LabelledDatabase",
    "MixedSettingsError",
    "NotConvergedError",
    "VaspEngine",
    "dimers",
    "isolated_atom",
    "label_frames",
]
