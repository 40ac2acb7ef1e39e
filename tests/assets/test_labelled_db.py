"""Metadata and observations of labels: cost, failures with reasons, and progress."""

import base64
import os
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from io_managers.label_database import LabelDatabaseIOManager
from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.assets.labelled_db import labelled_db
from mlip_assets.labelling import LabelledDatabase
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.earlier import EarlierResults

TOY_ENGINE = Path(__file__).parents[1] / "labelling"
CAMPAIGN = """\
name: copper
composition: Cu
exploration: {{n_steps: 400, sample_every: 1}}
sampling: {{n_samples: 4}}
labelling: {labelling}
"""


class ToyDft(DftResource):
    """Effective-medium theory through the real ledger and its child processes."""

    calls_file: str

    def engine(self, settings, elements):
        from toy_engine import ToyEngine

        return ToyEngine(calls_file=self.calls_file)


@pytest.fixture
def materialize(tmp_path, monkeypatch):
    """Label frames as a run of Dagster does; gives metadata, checks and observations."""
    monkeypatch.syspath_prepend(str(TOY_ENGINE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOY_ENGINE), *sys.path]))
    storage = Storage(root=str(tmp_path / "data"))
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["copper"])

    def run(frames, labelling="{}", n_explored=None):
        (tmp_path / "copper.yaml").write_text(CAMPAIGN.format(labelling=labelling))
        if n_explored:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    "surrogate_trajectory", partition="copper", metadata={"n_frames": n_explored}
                )
            )

        @dg.asset(partitions_def=campaign_partitions)
        def selected_frames():
            return frames

        result = dg.materialize(
            [selected_frames, labelled_db],
            resources={
                "labels": LabelDatabaseIOManager(storage=storage),
                "campaigns": CampaignFolder(folder=str(tmp_path)),
                "compute": ComputeResource(n_workers=2),
                "dft": ToyDft(
                    ledger_path=str(tmp_path / "ledger" / "labels.db"),
                    calls_file=str(tmp_path / "calls.txt"),
                ),
                "earlier": EarlierResults(storage=storage),
                "io_manager": dg.mem_io_manager,
            },
            partition_key="copper",
            instance=instance,
            raise_on_error=False,
        )
        (made,) = [
            event.step_materialization_data.materialization.metadata
            for event in result.get_asset_materialization_events()
            if event.asset_key.path[-1] == "labelled_db"
        ]
        checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
        observed = [
            event.asset_observation_data.asset_observation
            for event in result.get_asset_observation_events()
        ]
        return {key: value.value for key, value in made.items()}, checks, observed

    return run


@pytest.mark.slow
def test_labelled_db_metadata_give_the_cost_of_the_run(materialize):
    from toy_engine import RAISES, toy_frame

    frames = [toy_frame("Cu", seed) for seed in range(3)]
    frames += [toy_frame("Cu", 2), toy_frame(RAISES, 5)]
    crushed = toy_frame("Cu", 6)
    crushed.positions[1] = crushed.positions[0] + [0.4, 0, 0]
    made, checks, observed = materialize([*frames, crushed], n_explored=1000)
    assert made["dft_calls_made"] == 3 + 1 + 2  # frames, the one that fails, isolated atoms
    assert (made["dft_calls_saved"], made["n_duplicates"]) == (1, 1)
    assert made["failed_by_reason"] == {"error": 1, "close_contact": 1}
    assert made["frames_explored_per_label"] == 1000 / 4
    assert made["core_hours_spent"] > 0
    assert made["core_hours_saved_vs_every_10th"] > 10 * made["core_hours_spent"]
    assert made["ledger_of_all_campaigns"]["calls_started"] == 6
    assert "core_hours_expected" not in made, "nothing was known before"
    assert not checks["labels_converged"].passed
    assert checks["binding_energy_plausible"].passed
    assert (
        observed[-1].metadata["labels_done"].value
        == observed[-1].metadata["labels_total"].value
        == 6
    )
    assert observed[-1].partition == "copper"

    again, _, _ = materialize([*frames, crushed])
    assert again["dft_calls_made"] == 0
    assert again["core_hours_spent"] == 0
    assert again["core_hours_reused"] > 0


def test_labelled_db_with_a_budget_of_zero_reports_it(materialize):
    from toy_engine import toy_frame

    made, checks, _ = materialize([toy_frame("Cu", 1)], labelling="{budget: 0}")
    assert (made["n_labelled"], made["n_deferred"], made["dft_calls_made"]) == (0, 1, 0)
    assert made["settings"]["budget_calls"] == 0
    assert not checks["binding_energy_plausible"].passed
    assert made["picture"].startswith("![picture](data:image/png;base64,")
    finished, _, _ = materialize([toy_frame("Cu", 1)], labelling="{budget_core_hours: 1.0}")
    assert (finished["n_labelled"], finished["n_deferred"]) == (1, 0)


def test_labelled_db_names_outliers_by_frame(monkeypatch):
    from ase.build import bulk

    rng = np.random.default_rng(0)
    frames = []
    for i in range(30):
        atoms = bulk("Cu")
        atoms.info = {"REF_energy": -3.5 + 0.01 * rng.normal(), "seed_kind": "crystal"}
        atoms.info["frame_id"] = 7000 + i
        atoms.set_array("REF_forces", rng.normal(size=(1, 3)) * 0.1 + 1)
        frames.append(atoms)
    frames[11].info["REF_energy"] += 1.0
    frames[17].arrays["REF_forces"] *= 9.0
    free = bulk("Cu")
    free.info["REF_energy"] = 0.0
    database = LabelledDatabase(frames, [free], [], [], 0, 0, 0.0, "e" * 64)
    annotated = []
    from matplotlib.axes import Axes

    monkeypatch.setattr(
        Axes, "annotate", lambda self, text, *args, **kwargs: annotated.append(text)
    )
    png = figures.label_plot(database)
    assert sorted(annotated) == ["7011", "7017"]
    assert base64.b64encode(png).startswith(b"iVBOR")
