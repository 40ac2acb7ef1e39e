"""The child process that computes one label: ``python -m mlip_assets.labelling.worker PARENT``.

It reads ``job.json`` in its working folder, and writes ``result.json`` there, which is renamed into
place, so that it is complete or absent. The process ends when its parent process ends.
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
    result = _compute(job)
    result["wall_s"] = time.monotonic() - started
    write_text(folder / RESULT, json.dumps(result))


def tail(file: Path) -> str:
    """The last lines of a text file that are not empty, joined to one line, for messages."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip(" -=")]
    return f"{file.name} ends: {' | '.join(lines[-_TAIL_LINES:])}" if lines else f"no {file.name}"


def _compute(job: dict[str, Any]) -> dict[str, Any]:
    engine: DftEngine = getattr(import_module(job["module"]), job["class"])(**job["fields"])
    result: dict[str, Any]
    try:
        calculation = engine.calculate(Atoms(**job["structure"]), job["attempt"])
        stress = calculation.stress
        result = {
            "outcome": "done",
            "reason": "",
            "energy_eV": calculation.energy_eV,
            "forces": calculation.forces.tolist(),
            "stress": None if stress is None else stress.tolist(),
        }
    except NotConvergedError as error:
        result = _failure("not_converged", str(error), engine)
    except KilledError as error:
        result = _failure("died", str(error), engine)
    except Exception as error:  # noqa: BLE001  an error of one calculation must not stop the others
        traceback.print_exc()
        result = _failure("error", f"{type(error).__name__}: {error}", engine)
    return result | {"program": engine.program()}


def _failure(outcome: str, reason: str, engine: DftEngine) -> dict[str, Any]:
    return {"outcome": outcome, "reason": f"{reason}; {tail(Path(engine.output))}"}


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    main(Path.cwd())
