"""Promotion over several models of one campaign, through the real asset and its storage.

The labels are the bundled surrogate's own, so that its weights, shaken a little or more, are a
better and a worse model of them.
"""

import subprocess
import sys
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from io_managers.report import ReportIOManager
from io_managers.storage import Storage
from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.assets.model import HELD_OUT_NAME
from mlip_assets.assets.model_report import model_report
from mlip_assets.cli import main
from mlip_assets.evaluation import ModelReport
from mlip_assets.labelling import LabelledDatabase
from mlip_assets.release import PromotedModels
from mlip_assets.release.lammps import ExportError, evaluate_export, export_lammps
from mlip_assets.surrogates import find_surrogate
from mlip_assets.surrogates.batch import evaluate as evaluate_frames
from mlip_assets.surrogates.mace_calculator import state_dict_sha256
from mlip_assets.training import HeldOut, TrainedModel, evaluate, split_labels
from mlip_assets.training.committee import calibrate_committee
from mlip_assets.training.errors import predict
from mlip_assets.training.labels import dataset_sha256
from resources.campaigns import REFRESH_TAG, CampaignFolder
from resources.surrogate import SurrogateResource

pytestmark = pytest.mark.slow

COPPER = """\
name: copper
composition: Cu
exploration: {temperatures_K: [300]}
training: {stability_steps: 100}
"""


@pytest.fixture(scope="module")
def surrogate():
    return find_surrogate("bundled", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def labels(surrogate):
    calculator = surrogate.calculator()
    rng = np.random.default_rng(0)
    frames = []
    for i in range(10):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * rng.normal(1, 0.02), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
        frames.append(_labelled(atoms, calculator, frame_id=1000 * i, walker=f"w{i}"))
    free = _labelled(Atoms("Cu"), calculator)
    return LabelledDatabase(frames, [free], [], [], 11, 0, 1.0, "toy")


def _labelled(atoms, calculator, **info):
    atoms.calc = calculator
    atoms.info.update(
        info,
        seed_kind="crystal",
        target_temperature_K=300.0,
        REF_energy=float(atoms.get_potential_energy()),
    )
    atoms.arrays["REF_forces"] = atoms.get_forces()
    if atoms.pbc.all():
        atoms.info["REF_stress"] = atoms.get_stress(voigt=False)
    atoms.calc = None
    return atoms


@pytest.fixture(scope="module")
def project(labels, surrogate, tmp_path_factory):
    return Project(tmp_path_factory.mktemp("report"), labels, surrogate)


class Project:
    """A campaign in which any model may be the one that was trained."""

    def __init__(self, folder, labels, surrogate):
        self.folder, self.labels, self.surrogate = folder, labels, surrogate
        (folder / "copper.yaml").write_text(COPPER)
        self.data = folder / "data" / "copper"
        self.split = split_labels(labels.labelled, valid_fraction=0.1, test_fraction=0.45, seed=0)
        HeldOut().with_split(self.split.test, self.split.train).save(self.data / HELD_OUT_NAME)

    def model(self, shaken) -> TrainedModel:
        """The surrogate with relative noise on its weights; two more are its committee."""

        (file, module), *others = (self._noisy(shaken, seed) for seed in range(3))
        predicted = predict(file, self.split.by_name)
        members, calibration = calibrate_committee(
            self.split, predicted, [one for one, _ in others]
        )
        metrics = evaluate(file, self.split.by_name)
        return TrainedModel(
            model_file=file,
            metrics=metrics | {"uncertainty": asdict(calibration)},
            dataset_sha256=dataset_sha256(self.labels.labelled, self.labels.isolated_energies),
            weights_sha256=state_dict_sha256(module),
            members=members,
            parity={},
            elements=("Cu",),
            start_from="surrogate",
            wall_s=1.0,
        )

    def _noisy(self, shaken, seed):
        import torch

        file = self.surrogate.save_model(self.folder / f"shaken-{shaken}-{seed}.model")
        module = torch.load(file, weights_only=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in module.parameters():
                weights.mul_(1 + shaken * torch.randn(weights.shape, generator=generator))
        torch.save(module, file)
        return file, module

    @cached_property
    def models(self):
        """A poor one, a good one, and one that is worse than either."""
        return tuple(self.model(shaken) for shaken in (0.01, 0.001, 0.02))

    @property
    def campaigns(self):
        return CampaignFolder(folder=str(self.folder), data=str(self.folder / "data"))

    def report(self, trained, *, refresh=False):
        """Metadata and passed checks."""

        @dg.asset(partitions_def=campaign_partitions)
        def model():
            return trained

        @dg.asset(partitions_def=campaign_partitions)
        def labelled_db():
            return self.labels

        storage = Storage(root=str(self.folder / "data"))
        instance = dg.DagsterInstance.ephemeral()
        instance.add_dynamic_partitions("campaign", ["copper"])
        result = dg.materialize(
            [model, labelled_db, model_report],
            resources={
                "storage": storage,
                "campaigns": self.campaigns,
                "surrogate": SurrogateResource(),
                "report": ReportIOManager(storage=storage),
                "io_manager": dg.mem_io_manager,
            },
            partition_key="copper",
            instance=instance,
            tags={REFRESH_TAG: "true"} if refresh else None,
        )
        (event,) = result.asset_materializations_for_node("model_report")
        checks = {c.check_name: c.passed for c in result.get_asset_check_evaluations()}
        return {key: value.value for key, value in event.metadata.items()}, checks


def test_model_report_promotes_a_better_model_and_keeps_it_over_a_worse_one(project):
    poor, good, worse = project.models
    promoted = PromotedModels(project.data / "promoted")

    made, checks = project.report(poor)
    assert made["promoted"], made["promotion_reason"]
    assert promoted.in_use()[0].weights_sha256 == poor.weights_sha256
    assert checks["better_than_mean"]
    assert not checks["better_than_surrogate"], "nothing beats what made the labels"
    assert checks["stable_at_every_temperature"]
    assert checks["energy_conserved"]
    assert made["uncertainty_scale"] > 0
    assert checks["uncertainty_ranks_errors"] == (made["uncertainty_spearman"] > 0)
    assert made["picture_uncertainty"].startswith("![picture](data:image/png")

    made, _ = project.report(good, refresh=True)
    assert made["promoted"]
    assert made["promoted_force_rmse_meV_per_A"] > made["model_force_rmse_meV_per_A"]
    assert promoted.in_use()[0].weights_sha256 == good.weights_sha256

    made, _ = project.report(worse, refresh=True)
    assert not made["promoted"]
    assert made["promotion_reason"].startswith("worse: ")
    best, _ = promoted.in_use()
    assert best.weights_sha256 == good.weights_sha256
    assert worse.model_file.exists()
    kept = [best.model_file.parent / name for name in ("report/report.json", "labels/labels.db")]
    assert all(file.exists() for file in kept)
    report = project.data / "model_report"
    assert {file.suffix for file in report.iterdir()} == {".json", ".png"}
    assert Path(made["report_file"]) == report / "report.json"

    resource = SurrogateResource(
        own_models=str(project.folder / "data" / "{campaign}" / "promoted")
    )
    campaign = project.campaigns.load("copper")
    exploration = campaign.exploration.model_copy(update={"surrogate": "own-model"})
    own = resource.resolve(campaign.model_copy(update={"exploration": exploration}))
    assert [member.file for member in own.members] == [best.model_file, *best.members]


def test_model_report_finishes_a_round_and_plots_the_learning_curve(project):
    """After the test above, whose three models were those of a first run and two refreshes."""
    poor, good, worse = project.models
    first, second, third = project.campaigns.rounds("copper").rounds
    assert [r.model for r in (first, second, third)] == [
        PromotedModels(project.data / "promoted").folder_of(model).name
        for model in (poor, good, good)
    ]
    assert first.finished
    assert second.finished
    assert second.explored_with == first.model
    assert second.error_reduction == pytest.approx(1 - second.error_ratio)
    assert second.error_reduction > 0.5
    assert third.error_ratio > 1
    assert third.error_reduction == 0
    report = project.data / "model_report"
    points = ModelReport.open(report).learning_curve
    errors = [point.force_rmse_meV_per_A for point in points]
    assert [point.n_labels for point in points] == [len(project.labels.labelled)] * 3
    assert errors[1] == pytest.approx(good.metrics["splits"]["test"]["force_rmse_meV_per_A"])
    assert errors[0] > errors[1] == errors[2]
    assert (report / "learning_curve.png").exists()
    resource = SurrogateResource(
        own_models=str(project.folder / "data" / "{campaign}" / "promoted")
    )
    campaign = project.campaigns.load("copper")
    explorer, *_ = resource.resolve(campaign.in_round(1, second.explored_with)).members
    assert explorer.file.parent.name == first.model, "what was promoted then, not now"

    project.report(worse)  # the last round once more: nothing about it changes
    assert project.campaigns.rounds("copper").rounds[2].error_ratio == third.error_ratio


def test_package_contains_the_promoted_model(project, monkeypatch, capsys):
    """After the test above: a folder that works without this program."""
    monkeypatch.setenv("MLIP_DATA", str(project.data.parent))
    assert main(["package", str(project.folder / "copper.yaml")]) == 0, capsys.readouterr().err
    folder = project.data / "package"
    assert {path.name for path in folder.iterdir()} == {
        "MODEL_CARD.md", "SHA256SUMS", "campaign.yaml", "copper-lammps.pt", "copper.model",
        "copper-committee-1.model", "copper-committee-2.model", "dataset.extxyz", "report",
        "use_with_ase.py",
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    best, _ = PromotedModels(project.data / "promoted").in_use()
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for text in (best.weights_sha256, "g/cm³", "300 K (10)", "| model, crystal |", "bulk modulus"):
        assert text in card
    frames = read(folder / "dataset.extxyz", ":")
    own = find_surrogate("own-model", device="cpu", dtype="float32", own_model=best)
    namespace = {"atoms": frames[-1].copy()}
    monkeypatch.chdir(folder)
    exec(card.split("```python\n")[1].split("```")[0], namespace)  # as a reader of the card would
    (expected,) = evaluate_frames(own.calculator(), [frames[-1]])
    assert namespace["spread"] == pytest.approx(expected.force_spread.max(), rel=1e-3)
    scale = best.metrics["uncertainty"]["scale"]
    assert f"{scale:.3g} × its spread, by 5 validation and held-out frames" in card
    assert sum(bool(frame.info.get("held_out")) for frame in frames) == len(project.split.test)

    ended = subprocess.run(
        [sys.executable, folder / "use_with_ase.py"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "after 0.1 ps at 300 K" in ended.stdout


def test_lammps_export_gives_the_energies_of_the_model(project):
    model, _ = PromotedModels(project.data / "promoted").in_use()
    atoms = project.labels.labelled[1].copy()
    energy, forces = evaluate_export(project.data / "package" / "copper-lammps.pt", atoms)
    atoms.calc = model.calculator(dtype="float64")
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-7)
    with pytest.raises(ExportError, match="exit status 1"):
        export_lammps(project.folder / "copper.yaml", project.folder / "x.pt", atoms)
    assert not (project.folder / "x.pt").exists()


def test_package_refuses_a_report_on_other_labels(project):
    stale = replace(project.models[1], dataset_sha256="0" * 64)
    with pytest.raises(dg.Failure, match="materialize model again"):
        project.report(stale)
