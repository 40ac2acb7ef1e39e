"""Make the bundled surrogate again: ``python scripts/bundled_model.py --work DIR``.

The campaigns of ``scripts/bundled_campaigns`` run in the pipeline from seeds to labels. The labels are by
the teacher (CHGNet, and Lennard-Jones for argon) in place of density-functional theory:

1. The teacher explores, and a small MACE is trained on the labels of all campaigns from random weights.
2. This student explores, longer and from other seeds. Frames outside the labelled region are labelled, and
   the student is fine-tuned on all labels.
3. The second student explores once more, and is tested on labels that it has not seen.

Campaigns with ``refresh: {enabled: false}`` are in the first pass only.

Last, the program makes the report of each material and writes the files of
``mlip_assets/surrogates/bundled``, unless atoms at short distance attract. An interrupted run resumes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from ase import Atoms

sys.path.insert(0, str(Path(__file__).parents[1]))
from bundled_card import error_rows, exploration_rows, markdown, rows_of, write_card

from mlip_assets.campaign import Campaign, LabellingSettings, TrainingSettings
from mlip_assets.cli.logs import log_to_terminal
from mlip_assets.common.files import locked, write_text
from mlip_assets.compute import Compute, InProcess
from mlip_assets.definitions import defs, resources_at
from mlip_assets.evaluation import ModelReport, make_report
from mlip_assets.evaluation.pair_curves import pair_curves
from mlip_assets.evaluation.report import REPORT_NAME
from mlip_assets.figures import crystal_table, report_pictures, trial_table
from mlip_assets.labelling import DftEngine, LabelledDatabase
from mlip_assets.labelling.dimers import is_dimer
from mlip_assets.labelling.engines.teacher import (
    TeacherEngine,
    teacher_of,
)
from mlip_assets.surrogates import load_campaign
from mlip_assets.surrogates.mace_calculator import state_dict_sha256
from mlip_assets.surrogates.models.bundled import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    export_model,
    load_model,
)
from mlip_assets.training import HeldOut, TrainedModel, evaluate, fit_mace
from mlip_assets.training.labels import WEIGHT_KEY, dataset_sha256
from resources.compute import ComputeResource
from resources.dft import DftResource

LOG = logging.getLogger("mlip_assets.bundled")
ROOT = Path(__file__).parents[1]
CAMPAIGNS = ROOT / "scripts" / "bundled_campaigns"
PICTURES = ROOT / "docs" / "images"
#: Campaigns with a report; all are tested.
REPORTED = ("silicon", "copper", "argon", "aluminium", "sodium-chloride", "magnesium-oxide")
#: Campaign whose equation of state the model card shows.
CARD_PICTURE = "silicon"
#: Largest force in a frame near equilibrium, eV/Å.
MAX_QUIET_EV_PER_A = 0.5
#: Above these largest forces, eV/Å, the weight of a frame is reduced, so that equal relative errors have
#: equal weight. The limit is larger for dimers, whose cores are fitted, and smaller for argon, whose
#: potential wells are shallow.
STIFF_EV_PER_A, STIFF_DIMER_EV_PER_A, STIFF_ARGON_EV_PER_A = 5.0, 10.0, 0.5


class TeacherResource(DftResource):
    """The teacher, for every DFT program that a campaign names."""

    def engine(self, settings: LabellingSettings, elements: Collection[str]) -> DftEngine:  # noqa: ARG002
        """The teacher has no settings."""
        return TeacherEngine()


class InProcessCompute(ComputeResource):
    """Labels are computed in the calling process, so that the teacher is loaded once."""

    def processes(self) -> Compute:
        """One calculation at a time."""
        return InProcess()


@dataclass(frozen=True)
class Pass:
    """One round of exploration and labels, and the training on all labels until then.

    Errors of a few meV/Å are large for argon and negligible for silicon, so argon frames have the
    weight ``argon_weight``. Frames near equilibrium determine lattice constants and elasticity, but
    most frames are of melts, so the former have the weight ``quiet_weight``. Frames with large
    forces have smaller weights.
    """

    step_factor: int
    """Steps of each walker, relative to the campaign file."""
    label_factor: float
    """Number of labels, relative to the campaign file."""
    max_epochs: int = 0
    learning_rate: float = 0.01
    argon_weight: float = 1.0
    quiet_weight: float = 1.0

    def weight(self, frame: Atoms) -> float:
        """Weight of a frame in the loss."""
        largest = float(np.linalg.norm(frame.arrays["REF_forces"], axis=1).max())
        weight = self.quiet_weight if largest < MAX_QUIET_EV_PER_A else 1.0
        stiff = STIFF_DIMER_EV_PER_A if is_dimer(frame) else STIFF_EV_PER_A
        if set(frame.symbols) == {"Ar"}:
            weight, stiff = self.argon_weight, STIFF_ARGON_EV_PER_A
        return weight * min(1.0, stiff / largest) ** 2 if largest else weight


PASSES = (
    Pass(1, 1.0, max_epochs=28, argon_weight=60.0, quiet_weight=3.0),
    Pass(16, 1.0, max_epochs=130, learning_rate=0.02, argon_weight=250.0, quiet_weight=8.0),
    Pass(4, 0.25),
)


@dataclass(frozen=True)
class Labels:
    """The labels of a campaign in one pass."""

    campaign: Campaign
    frames: list[Atoms]
    isolated_energies: dict[str, float]


class Pipeline:
    """The assets of the pipeline up to the labels, with the teacher in place of DFT."""

    def __init__(self, work: Path, n_workers: int) -> None:
        self.campaigns, self.data = work / "campaigns", work / "data"
        self._resources = {
            **resources_at(self.data, self.campaigns),
            "compute": InProcessCompute(n_workers=n_workers),
            "dft": TeacherResource(ledger_path=str(self.data / "ledger" / "labels.db")),
        }
        history = work / "dagster"
        history.mkdir(parents=True, exist_ok=True)
        self._instance = dg.DagsterInstance.local_temp(str(history))

    def labels(self, campaign: Campaign) -> Labels:
        """Run a campaign up to its labels, unless there are labels newer than its settings."""
        file = self.campaigns / f"{campaign.name}.yaml"
        if not file.exists() or file.read_text(encoding="utf-8") != campaign.to_yaml():
            write_text(file, campaign.to_yaml())
        labelled = self.data / campaign.name / "labelled_db"
        done = labelled / "labels.db"
        if not done.exists() or done.stat().st_mtime < file.stat().st_mtime:
            LOG.info("── %s", campaign.name)
            self._instance.add_dynamic_partitions("campaign", [campaign.name])
            dg.materialize(
                list(defs.assets or ()),
                selection=dg.AssetSelection.assets("labelled_db").upstream(),
                resources=self._resources,
                instance=self._instance,
                partition_key=campaign.name,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        database = LabelledDatabase.open(labelled)
        for frame in database.labelled:  # the walkers of two campaigns have equal names
            frame.info["walker"] = f"{campaign.name}/{frame.info.get('walker', 'none')}"
        return Labels(campaign, database.labelled, database.isolated_energies)


def campaign_of_pass(base: Campaign, number: int, student: TrainedModel | None) -> Campaign:
    """The campaign for the exploration by the teacher, or by the current student."""
    if student is None:
        return base
    kind, exploration = PASSES[number], base.exploration
    earlier = [base.name, *(f"{base.name}-{n}" for n in range(2, number + 1))]
    longer = {
        "surrogate": str(student.model_file),
        "n_steps": exploration.n_steps * kind.step_factor,
        "sample_every": exploration.sample_every * kind.step_factor // 2,
    }
    fewer = {
        "n_samples": max(4, round(base.sampling.n_samples * kind.label_factor)),
        "exclude_labelled_in": tuple(earlier),
    }
    return base.model_copy(
        update={
            "name": f"{base.name}-{number + 1}",
            "random_seed": base.random_seed + number,
            "exploration": exploration.model_copy(update=longer),
            "sampling": base.sampling.model_copy(update=fewer),
            "labelling": base.labelling.model_copy(update={"dimers": ()}),
        }
    )


def train(
    labels: Iterable[Labels], kind: Pass, work: Path, student: TrainedModel | None, seed: int
) -> TrainedModel:
    """One model of all labels, from random weights or from the current student."""
    frames = [frame for one in labels for frame in one.frames]
    for frame in frames:
        frame.info[WEIGHT_KEY] = kind.weight(frame)
    return fit_mace(
        frames,
        isolated_energies(labels),
        TrainingSettings(
            start_from="surrogate" if student else "scratch",
            num_channels=32,
            committee=1,
            max_epochs=kind.max_epochs,
            learning_rate=kind.learning_rate,
            batch_size=8,
            valid_fraction=0.05,
            test_fraction=0.05,
        ),
        work_dir=work / "training",
        seed=seed,
        foundation_model=student.model_file if student else None,
        held_out_file=work / "held_out.json",
    )


def isolated_energies(labels: Iterable[Labels]) -> dict[str, float]:
    """Isolated-atom energies of all elements, eV; equal in all campaigns with the element."""
    return {symbol: e for one in labels for symbol, e in one.isolated_energies.items()}


def of_composition(labels: Iterable[Labels], composition: str) -> list[Atoms]:
    """The labelled frames of all campaigns with one composition."""
    return [a for one in labels if one.campaign.composition == composition for a in one.frames]


def report_of(
    model: TrainedModel,
    metrics: dict[str, Any],
    train_frames: list[Atoms],
    test_frames: list[Atoms],
    labels: Labels,
    folder: Path,
) -> ModelReport:
    """The pipeline's report on one material, with the teacher as the surrogate."""
    labelled, campaign = [*train_frames, *test_frames], labels.campaign
    data_hash = dataset_sha256(labelled, labels.isolated_energies)
    if (folder / REPORT_NAME).exists():
        report = ModelReport.open(folder)
        if (report.weights_sha256, report.dataset_sha256) == (model.weights_sha256, data_hash):
            return report
    LOG.info("── report on %s", campaign.composition)
    report = make_report(
        replace(
            model,
            elements=campaign.elements,
            metrics=metrics,
            dataset_sha256=data_hash,
        ),
        labelled,
        labels.isolated_energies,
        held_out=HeldOut().with_split(test_frames, train_frames),
        surrogate=teacher_of(campaign.elements),
        promoted=None,
        temperatures_K=campaign.exploration.temperatures_K[-2:-1],
        timestep_fs=campaign.exploration.timestep_fs,
        stability_steps=campaign.training.stability_steps,
        seed=campaign.random_seed,
    )
    report = replace(report, pictures=report_pictures(report))
    report.save(folder)
    return report


def find_pair_faults(model: TrainedModel) -> dict[str, list[str]]:
    """Pairs of elements whose curve is not repulsive in the core, or not smooth outside."""
    curves = pair_curves(model.calculator(dtype="float64"), model.elements)
    return {
        "not repulsive": [curve.pair for curve in curves if not curve.is_repulsive],
        "not smooth": [curve.pair for curve in curves if not curve.is_smooth],
    }


def publish(model: TrainedModel, folder: Path, seed: int) -> None:
    """Export without pickle, and check that the rebuilt weights equal the trained ones."""
    import torch

    module = torch.load(
        model.model_file, map_location="cpu", weights_only=False
    )  # written by this program
    provenance = {
        "teacher": TeacherEngine().program(),
        "chgnet": importlib.metadata.version("chgnet"),
        "mace": importlib.metadata.version("mace-torch"),
        "physics": dict(TeacherEngine().physics),
        "passes": [asdict(kind) for kind in PASSES],
        "script": Path(__file__).name,
        "seed": seed,
    }
    export_model(module, folder, BUNDLED_NAME, provenance)
    if state_dict_sha256(load_model(folder, BUNDLED_NAME)) != model.weights_sha256:
        raise RuntimeError(
            f"{folder / BUNDLED_NAME}: the rebuilt weights differ from the trained ones"
        )


def main() -> None:
    """Read the command line and make the model."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of all results")
    parser.add_argument("--into", type=Path, default=BUNDLED_FOLDER, help="folder of the files")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--seed", type=int, default=20, help="random seed of the trainings")
    parser.add_argument("--workers", type=int, default=0, help="cores; 0: all")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of libraries, in worker processes
    warnings.simplefilter("ignore")
    log_to_terminal()

    with locked(work / "lock", wait=True):
        make(
            work,
            arguments.into,
            arguments.pictures,
            seed=arguments.seed,
            n_workers=arguments.workers,
        )


def make(work: Path, into: Path, pictures: Path, *, seed: int, n_workers: int) -> None:
    """Make the model, test it, and write its files."""
    bases = [load_campaign(file) for file in sorted(CAMPAIGNS.glob("*.yaml"))]
    pipeline = Pipeline(work, n_workers)
    training: list[Labels] = []
    model: TrainedModel | None = None
    for number, kind in enumerate(PASSES):
        selected = [base for base in bases if number == 0 or base.refresh.enabled]
        campaigns = [campaign_of_pass(base, number, model) for base in selected]
        labels = [pipeline.labels(campaign) for campaign in campaigns]
        if kind.max_epochs:
            training += labels
            model = train(training, kind, work, model, seed + number)
            faults = find_pair_faults(model)
            LOG.info("pair curves: %s", faults)
    assert model is not None
    if faults["not repulsive"]:
        LOG.error("not published: these atoms attract at short distance: %s", faults)
        sys.exit(1)

    metrics: dict[str, dict[str, Any]] = {}
    reports: dict[str, ModelReport] = {}
    for base, of in zip(selected, labels, strict=True):
        seen, unseen = (of_composition(part, base.composition) for part in (training, labels))
        if base.composition not in metrics:
            metrics[base.composition] = evaluate(model.model_file, {"train": seen, "test": unseen})
        if base.name in REPORTED:
            reports[base.name] = report_of(
                model, metrics[base.composition], seen, unseen, of, work / "reports" / base.name
            )
    publish(model, into, seed)
    picture = pictures / f"bundled-{CARD_PICTURE}.png"
    picture.write_bytes(reports[CARD_PICTURE].pictures["crystal"])
    files = [into / f"{BUNDLED_NAME}.{suffix}" for suffix in ("json", "npz")]
    write_card(
        into,
        {
            "Errors on labels of the last pass": markdown(error_rows(metrics)),
            "Crystals": rows_of(crystal_table, reports),
            "MD stability tests": rows_of(trial_table, reports),
            "Pair curves": "\n".join(
                f"- {fault}: {', '.join(pairs) or 'none'}" for fault, pairs in faults.items()
            )
            + f"\n\nof all {len(model.elements) * (len(model.elements) + 1) // 2} pairs of elements.",
            "Explorations of the last pass": markdown(exploration_rows(pipeline.data, campaigns)),
            "Files": markdown({"file": f.name, "bytes": f.stat().st_size} for f in files)
            + f"\n\nsha256 of the state dict: `{model.weights_sha256}`",
        },
    )


if __name__ == "__main__":
    main()
