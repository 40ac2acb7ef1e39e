"""The loop, as people leave it running: a real daemon refreshes a real campaign on its schedule."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from mlip_assets.evaluation import ModelReport
from mlip_assets.refresh.rounds import ROUNDS_NAME, Rounds

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.dft,
    pytest.mark.slow,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(
        not os.environ.get("MLIP_LONG_TESTS"), reason="set MLIP_LONG_TESTS=1; takes half an hour"
    ),
]

N_REFRESHES = 3
PATIENCE_S = 3600
DAEMON = ("dagster-daemon", "run", "-w", "workspace.yaml")
EVERY_MINUTE = {"MLIP_REFRESH_CRON": "* * * * *"}
SILICON = """\
name: silicon
composition: Si
seeds: {kinds: [crystal, strained, vacancy, rattled, liquid], crystal_atoms: 8}
exploration: {temperatures_K: [300, 1500], n_steps: 200, sample_every: 10}
descriptors: {n_max: 6, l_max: 4}
sampling: {n_samples: 24}
labelling: {preset: fast, cutoff_eV: 250, k_spacing_per_A: 0.6}
training: {max_epochs: 40, test_fraction: 0.25}
refresh: {n_samples: 12, max_rounds: 3}
"""


def test_schedule_runs_three_refreshes_of_which_one_is_killed_in_training(project):
    (project.campaigns / "silicon.yaml").write_text(SILICON)
    data = project.folder / "data" / "silicon"

    def rounds():
        return Rounds.open(data / ROUNDS_NAME).rounds

    with project.instance() as instance, project.running(*DAEMON, **EVERY_MINUTE):
        project.run("dagster", "schedule", "start", "campaign_refresh", *DAEMON[2:], **EVERY_MINUTE)
        trainer = project.wait_for(
            lambda: len(rounds()) == 2 and _trainer_of(project.folder),
            "the trainer of the first refresh",
            PATIENCE_S,
        )
        os.kill(_parent_of(trainer), signal.SIGKILL)
        project.wait_for(
            lambda: sum(r.finished for r in rounds()) == 1 + N_REFRESHES or _stop_reason(instance),
            "the last refresh, or a tick with the reason for none",
            PATIENCE_S,
        )
        reason = project.wait_for(lambda: _stop_reason(instance), "a tick with the reason to stop")
    assert "refresh.max_rounds is 3" in reason or "converged" in reason

    done = rounds()
    killed = done[1]
    assert all(r.finished for r in done)
    assert killed.run_ids
    statuses = {run.status for run in instance.get_runs()}
    assert dg.DagsterRunStatus.FAILURE in statuses, "the run that was killed"
    labels = [r.n_labels for r in done]
    assert labels == sorted(labels)
    assert labels[-1] <= 24 + 12 * (len(done) - 1)
    assert all(r.explored_with == before.model for before, r in pairwise(done))
    errors = [
        p.force_rmse_meV_per_A for p in ModelReport.open(data / "model_report").learning_curve
    ]
    assert errors[-1] < errors[0] or "converged" in reason


def _trainer_of(folder: Path) -> int | None:
    """The process that trains for this project and has written a checkpoint."""
    if not list(folder.glob("data/silicon/model_training/*/checkpoints/*.pt")):
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:  # it has ended, or is not ours
            continue
        if b"mlip_assets.training.trainer" in command and bytes(folder) in environment:
            return int(process.name)
    return None


def _parent_of(pid: int) -> int:
    stat = (Path("/proc") / str(pid) / "stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def _stop_reason(instance: dg.DagsterInstance) -> str | None:
    """The reason that a tick of the schedule gives for not refreshing any more."""
    for state in instance.all_instigator_state():
        if state.instigator_name == "campaign_refresh":
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=3):
                if any(w in (tick.skip_reason or "") for w in ("max_rounds", "converged")):
                    return tick.skip_reason
    return None
