"""DFT programs, one module each. To add one, see CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling.engines.emt import EmtEngine
from mlip_assets.labelling.engines.engine import (
    Attempt,
    Calculation,
    DftEngine,
    EngineError,
    KilledError,
    NotConvergedError,
)
from mlip_assets.labelling.engines.espresso import EspressoEngine
from mlip_assets.labelling.engines.gpaw import GpawEngine
from mlip_assets.labelling.engines.vasp import VaspEngine

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
    "DftEngine",
    "EmtEngine",
    "EngineError",
    "EspressoEngine",
    "GpawEngine",
    "KilledError",
    "NotConvergedError",
    "VaspEngine",
]
