"""The child process that computes one label: ``python -m mlip_assets.labelling.worker PARENT``.

Reads ``job.json`` in its working folder and leaves ``result.json`` there, written aside and
renamed, so that it is whole or missing. It dies with its parent.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_assets.common.files import write_text
from mlip_assets.common.processes import die_with_parent
from mlip_assets.labelling.engines.engine import DftEngine, KilledError, NotConvergedError

JOB, RESULT, LOG = "job.json", "result.json", "worker.log"
_TAIL_LINES = 3


def main(folder: Path) -> None:
    """Compute the job in ``folder``, which is the working folder."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    started = time.monotonic()
    result = _computed(job)
    result["wall_s"] = time.monotonic() - started
    write_text(folder / RESULT, json.dumps(result))


def tail(file: Path) -> str:
    """How a text ends: its last lines that say something, on one line."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    said = [" ".join(line.split()) for line in text.splitlines() if line.strip(" -=")]
    return f"{file.name} ends: {' | '.join(said[-_TAIL_LINES:])}" if said else f"no {file.name}"


def _computed(job: dict[str, Any]) -> dict[str, Any]:
    engine: DftEngine = getattr(import_module(job["module"]), job["class"])(**job["fields"])
    ended: dict[str, Any]
    try:
        calculation = engine.calculate(Atoms(**job["structure"]), job["attempt"])
        stress = calculation.stress
        ended = {
            "outcome": "done",
            "reason": "",
            "energy_eV": calculation.energy_eV,
            "forces": calculation.forces.tolist(),
            "stress": None if stress is None else stress.tolist(),
        }
    except NotConvergedError as error:
        ended = _failed("not_converged", str(error), engine)
    except KilledError as error:
        ended = _failed("died", str(error), engine)
    except Exception as error:  # noqa: BLE001  whatever a program raises must not stop the others
        traceback.print_exc()
        ended = _failed("error", f"{type(error).__name__}: {error}", engine)
    return ended | {"program": engine.program()}


def _failed(outcome: str, reason: str, engine: DftEngine) -> dict[str, Any]:
    return {"outcome": outcome, "reason": f"{reason}; {tail(Path(engine.output))}"}


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    main(Path.cwd())
