"""What the trainer writes: its log, checked against the request, and its results by epoch."""

from __future__ import annotations

import json
import math
import re
from ast import literal_eval
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlip_assets.training.replay import LABEL_HEAD, REPLAY_HEAD
from mlip_assets.training.trainer.process import TrainingError

Curve = dict[str, list[float | None]]

#: Names in the lines of the trainer -> names in progress reports.
_FIGURES = {
    "loss": "loss",
    "RMSE_E_per_atom": "energy_rmse_meV_per_atom",
    "RMSE_F": "force_rmse_meV_per_A",
}


def verify_log(
    lines: Sequence[str],
    *,
    isolated_energies: Mapping[int, float],
    n_train: int,
    n_valid: int,
    foundation_model: Path | None,
    n_replay: tuple[int, int] | None = None,
) -> None:
    """Check in the log that the trainer trained as requested.

    mace-torch only warns, and continues, where labels are missing or replay is not possible.

    Parameters
    ----------
    lines
        All lines of one run of the trainer.
    isolated_energies
        Requested isolated-atom energies of the elements of the labels, by atomic number, eV.
    n_train, n_valid
        Number of labelled frames for training and for validation.
    foundation_model
        Model to start from; None for random initial weights.
    n_replay
        Number of replay structures for training and for validation; None for no replay.

    Raises
    ------
    TrainingError
        Labels not found, other isolated-atom energies or numbers of frames used, the foundation
        model not loaded, a replay head missing or not requested, or stage two not reached.
    """
    text = "\n".join(lines)
    problems = [line for line in lines if re.search(r"No (energies|forces) found", line)]
    used = re.search(rf"Atomic Energies used \(z: eV\) for head {LABEL_HEAD}: (\{{.*\}})", text)
    if used is None:
        problems.append("it does not report the isolated-atom energies it used")
    elif literal_eval(used.group(1)) != dict(isolated_energies):
        problems.append(
            f"it used the isolated-atom energies {used.group(1)}, not {dict(isolated_energies)}"
        )
    counts = re.search(r"Total number of configurations: train=(\d+), valid=(\d+)", text)
    if counts is None or (int(counts.group(1)), int(counts.group(2))) != (n_train, n_valid):
        found = counts.group(0) if counts else "no count"
        problems.append(f"it read other frames than {n_train} + {n_valid}: {found}")
    loaded = "as initial checkpoint" in text
    if loaded != (foundation_model is not None):
        problems.append(f"it {'used a' if loaded else 'did not use the'} foundation model")
    problems += _replay_problems(text, n_replay)
    if "Loaded Stage two model" not in text:
        problems.append("it did not reach stage two, in which the energies converge")
    if problems:
        raise TrainingError("the MACE trainer did not train as requested:\n" + "\n".join(problems))


def _replay_problems(text: str, n_replay: tuple[int, int] | None) -> list[str]:
    if n_replay is None:
        unrequested = "Using multiheads finetuning mode" in text
        return ["it trained a replay head, which was not requested"] if unrequested else []
    heads = re.search(r"Using heads: (\[.*\])", text)
    if heads is None or set(literal_eval(heads.group(1))) != {LABEL_HEAD, REPLAY_HEAD}:
        return [f"it trained no replay head: {heads.group(0) if heads else 'no heads'}"]
    counts = re.search(r"configurations in pretraining: train=(\d+), valid=(\d+)", text)
    if counts is None or (int(counts.group(1)), int(counts.group(2))) != n_replay:
        found = counts.group(0) if counts else "none"
        return [f"it replayed other structures than {n_replay[0]} + {n_replay[1]}: {found}"]
    return []


def epoch_of_line(line: str) -> tuple[int, dict[str, float]] | None:
    """Number of the epoch whose validation a log line reports, with its finite loss and errors.

    None for every other line. Epochs count from 0; errors are in meV/atom and meV/Å.
    """
    epoch = re.search(rf"INFO: Epoch (\d+): head: {LABEL_HEAD}, ", line)
    if epoch is None:
        return None
    figures = {
        name: float(value.group(1))
        for word, name in _FIGURES.items()
        if (value := re.search(rf"{word}=\s*(\S+?),?(\s|$)", line))
        and math.isfinite(float(value.group(1)))
    }
    return int(epoch.group(1)), figures


def read_curve(results: Path) -> Curve:
    """Losses and validation errors by epoch, also of a training that was interrupted and resumed.

    Parameters
    ----------
    results
        The trainer's ``results/*_train.txt``: one JSON object a batch and an evaluation. Each run
        appends to it; where a run repeats epochs of an earlier run, the later lines are used.

    Returns
    -------
    dict
        Lists of equal length: ``epoch``, ``train_loss``, ``valid_loss``,
        ``energy_rmse_meV_per_atom`` and ``force_rmse_meV_per_A`` (of the validation set). With
        replay, also the two errors of the replay head, with the prefix ``replay_``. None where a
        value is not finite. The losses of the two stages weight energies, forces and stresses
        differently and cannot be compared.
    """
    rows: dict[int, dict[str, float | None]] = {}
    batches: dict[int, list[float]] = {}
    is_new_run = True
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # incomplete line of a killed run; its epoch is repeated
            continue
        epoch = record["epoch"]
        if epoch is None:
            is_new_run = True
            continue
        if is_new_run:
            rows, batches = {known: rows[known] for known in rows if known < epoch}, {}
            is_new_run = False
        if record["mode"] == "opt":
            batches.setdefault(epoch, []).append(float(record["loss"]))
        else:
            rows.setdefault(epoch, {}).update(_row(record, batches.get(epoch, [])))
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {"epoch": [*rows], **{name: [row.get(name) for row in rows.values()] for name in names}}


def _row(record: dict[str, Any], losses: list[float]) -> dict[str, float | None]:
    row = {
        "energy_rmse_meV_per_atom": 1e3 * record["rmse_e_per_atom"],
        "force_rmse_meV_per_A": 1e3 * record["rmse_f"],
    }
    if record["head"] == REPLAY_HEAD:
        row = {f"replay_{name}": value for name, value in row.items()}
    else:
        row["train_loss"] = sum(losses) / len(losses) if losses else math.nan
        row["valid_loss"] = record["loss"]
    return {name: _finite(value) for name, value in row.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
