"""Labels from density-functional theory: each computed once, committed at once, never lost."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling.compute import Compute, InProcess, LocalProcesses
from mlip_assets.labelling.database import Failure, LabelledDatabase, MixedSettingsError
from mlip_assets.labelling.dimers import dimers
from mlip_assets.labelling.emt import EmtEngine
from mlip_assets.labelling.engines import (
    Attempt,
    Calculation,
    DftEngine,
    EngineError,
    KilledError,
    NotConvergedError,
)
from mlip_assets.labelling.espresso import EspressoEngine
from mlip_assets.labelling.gpaw import GpawEngine
from mlip_assets.labelling.labels import free_atom, label_frames
from mlip_assets.labelling.ledger import Label, LabelLedger
from mlip_assets.labelling.vasp import VaspEngine

#: How to make each engine that a campaign may name, from its settings and elements.
ENGINES: dict[str, Callable[[LabellingSettings, Collection[str]], DftEngine]] = {
    "gpaw": GpawEngine.from_settings,
    "espresso": EspressoEngine.from_settings,
    "vasp": VaspEngine.from_settings,
}

__all__ = [
    "ENGINES",
    "Attempt",
    "Calculation",
    "Compute",
    "DftEngine",
    "EmtEngine",
    "EngineError",
    "EspressoEngine",
    "Failure",
    "GpawEngine",
    "InProcess",
    "KilledError",
    "Label",
    "LabelLedger",
    "LabelledDatabase",
    "LocalProcesses",
    "MixedSettingsError",
    "NotConvergedError",
    "VaspEngine",
    "dimers",
    "free_atom",
    "label_frames",
]
