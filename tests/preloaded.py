"""Programs as forks of one process that has imported mace-torch and Dagster, 10 s of CPU time.

:func:`run_module` is what a forked process calls; the fixture ``preloaded`` starts it.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Modules of other projects only: those of this one read the environment, which is set later.
PRELOAD = ["dagster", "mace.calculators", "mace.cli.create_lammps_model", "sklearn.cluster"]


def run_module(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> None:
    """As ``python -m MODULE ARGUMENTS`` in a folder; both output streams are appended to ``log``."""
    with log.open("ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
