"""The child process that computes one label: ``python -m mlip_assets.labelling.worker PARENT``.

Reads ``job.json`` in its working folder and leaves ``result.json`` there, written aside and
renamed, so that it is whole or missing. It dies with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_assets.files import write_text
from mlip_assets.labelling.engines import DftEngine, NotConvergedError

JOB, RESULT = "job.json", "result.json"
_PARENT_CHECKED_EVERY_S = 0.5


def main(folder: Path, parent: int) -> None:
    """Compute the job in ``folder`` for the process ``parent``."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    started = time.monotonic()
    result = _computed(job)
    result["wall_s"] = time.monotonic() - started
    write_text(folder / RESULT, json.dumps(result))


def _computed(job: dict[str, Any]) -> dict[str, Any]:
    engine: DftEngine = getattr(import_module(job["module"]), job["class"])(**job["fields"])
    result: dict[str, Any] = {"outcome": "done", "reason": "", "program": _program(engine.name)}
    try:
        calculation = engine.calculate(Atoms(**job["structure"]), job["attempt"])
    except NotConvergedError as error:
        return result | {"outcome": "not_converged", "reason": str(error)}
    except Exception as error:  # noqa: BLE001  whatever a program raises must not stop the others
        traceback.print_exc()
        return result | {"outcome": "error", "reason": f"{type(error).__name__}: {error}"}
    stress = calculation.stress
    return result | {
        "energy_eV": calculation.energy_eV,
        "forces": calculation.forces.tolist(),
        "stress": None if stress is None else stress.tolist(),
    }


def _program(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def _die_with(parent: int) -> None:
    """Kill this process and its own children, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECKED_EVERY_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path.cwd(), int(sys.argv[1]))
