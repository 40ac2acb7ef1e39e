"""SIGKILL during MD, labelling and training: the next run computes only what is missing."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.db import connect

from mlip_assets.surrogates import find_surrogate

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path, tiny_campaign, preloaded):
    """Start ``python -m mlip_assets run`` on the tiny campaign, in a new folder."""
    campaign = tiny_campaign(tmp_path)
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    environment = os.environ | {
        "MLIP_DATA": str(tmp_path / "data"),
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    log = tmp_path / "terminal.log"

    def start():
        return preloaded("mlip_assets", ["run", str(campaign)], tmp_path, environment, log)

    start.data, start.log = tmp_path / "data", log
    return start


def kill_when(process, happened, log):
    """SIGKILL as soon as ``happened()``."""
    deadline = time.monotonic() + 600
    while not happened():
        assert process.is_alive(), f"ended before:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def labels(ledger):
    """Key -> (energy, time of writing) of every finished label."""
    if not ledger.exists():
        return {}
    rows = connect(ledger, use_lock_file=False).select()
    return {
        row.label_key: (row.data["REF_energy"], row.ctime)
        for row in rows
        if row.get("outcome") == "done"
    }


@pytest.mark.slow
@pytest.mark.dft
def test_run_killed_in_each_stage_is_resumed(run):
    campaign, ledger = run.data / "tiny", run.data / "ledger" / "labels.db"

    kill_when(run(), lambda: list(campaign.glob("surrogate_trajectory/*/part-*.parquet")), run.log)
    assert not (campaign / "surrogate_trajectory.json").exists(), "not committed half way"

    kill_when(run(), lambda: len(labels(ledger)) >= 3, run.log)
    stored = labels(ledger)

    kill_when(run(), lambda: list(campaign.glob("model_training/*/checkpoints/*.pt")), run.log)
    complete = labels(ledger)
    assert stored.items() <= complete.items(), "a label was computed again"
    assert not (campaign / "model" / "metrics.json").exists()

    last = run()
    last.join(timeout=600)
    assert last.exitcode == 0, run.log.read_text()[-3000:]
    assert labels(ledger) == complete
    output = run.log.read_text()
    assert re.search(r"DFT calls +0 made, \d+ saved", output)
    assert (campaign / "model" / "metrics.json").exists()

    surrogate = find_surrogate(
        str(campaign / "model" / "model.model"), device="cpu", dtype="float32"
    )
    surrogate.require_elements(["Si"])  # as the next campaign's exploration.surrogate
    atoms = bulk("Si")
    atoms.calc = surrogate.calculator()
    assert np.isfinite(atoms.get_forces()).all()
