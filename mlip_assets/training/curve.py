"""The course of one training, epoch by epoch, as mace-torch's trainer writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlip_assets.training.replay import REPLAY_HEAD

Curve = dict[str, list[float | None]]


def read_curve(results: Path) -> Curve:
    """Losses and validation errors by epoch, whatever kills and resumptions lie between.

    Parameters
    ----------
    results
        The trainer's ``results/*_train.txt``: one JSON object a batch and an evaluation, appended
        by each of its runs. Where a run repeats epochs of the one before, its lines count.

    Returns
    -------
    dict
        ``epoch`` and, as long, ``train_loss``, ``valid_loss``, ``energy_rmse_meV_per_atom`` and
        ``force_rmse_meV_per_A`` (of the validation set), and the last two with ``replay_`` before
        them where there was replay; None for what is not finite. The losses of the two stages
        weigh energies, forces and stresses differently and cannot be compared.
    """
    rows: dict[int, dict[str, float | None]] = {}
    batches: dict[int, list[float]] = {}
    a_run_begins = True
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # torn by a kill; its epoch is trained again
            continue
        epoch = record["epoch"]
        if epoch is None:
            a_run_begins = True
            continue
        if a_run_begins:
            rows, batches = {known: rows[known] for known in rows if known < epoch}, {}
            a_run_begins = False
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
