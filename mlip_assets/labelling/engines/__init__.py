"""DFT engines: one module for each program, with the interface in ``engine``.

To add an engine, for example for the program ``siesta``:

1. Write ``engines/siesta.py`` with a frozen dataclass ``SiestaEngine`` that satisfies
   :class:`DftEngine`. Derive it from ``PlaneWaveEngine`` (a Python package, see ``gpaw``) or from
   ``ProgramEngine`` (an external command with pseudopotential files, see ``espresso``), which give
   it ``from_settings``, ``physics``, ``prepare`` and the limits. Write ``check``, ``numerics``,
   ``program`` and ``calculate``. Take the k-points from ``kpoints``, return the free energy, and
   determine convergence from the output of the program, not from its exit status.
2. Add it to ``ENGINES`` and ``__all__`` below, and to ``mlip_assets/labelling/__init__.py``.
3. Add its name to ``LabellingSettings.engine`` in ``mlip_assets/campaign/settings/labelling.py``,
   and its values for fast, standard and strict to ``mlip_assets/campaign/presets.py``.
4. Write ``tests/labelling/engines/test_siesta.py``, and add the engine to
   ``test_settings_hash.py`` there and to ``tests/labelling/test_finite_differences.py``.
5. Describe it in ``docs/labelling.md``: program, preset values and errors against differences.

The name of an engine and its ``physics`` are hashed into every label key. Changing them invalidates
all its labels in all ledgers.
"""

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

#: Creates each engine of a campaign from its labelling settings and elements.
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
