"""Make the bundled surrogate again: ``python scripts/bundled_model.py --work DIR``.

The pipeline does it. The campaigns of ``scripts/bundled_campaigns`` run as any campaign does, from seeds to
labels, but that CHGNet (Lennard-Jones for argon) stands in for density-functional theory:

1. the teacher itself explores; a small MACE learns the labels of all campaigns from random weights;
2. that student explores, longer and from other seeds, beyond what is labelled; it learns on;
3. the second student explores once more, and is examined on labels it has never seen.

Campaigns with ``refresh: {enabled: false}`` are left at the first pass.

Then the report of each material and, unless atoms pushed together attract, the files of
``mlip_assets/surrogates/bundled``. Killed at any point, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from ase import Atoms

sys.path.insert(0, str(Path(__file__).parents[1]))
from io_managers.parquet import TrajectoryIOManager
from io_managers.storage import Storage
from mlip_assets.__main__ import log_to_terminal
from mlip_assets.campaign import Campaign, LabellingSettings, TrainingSettings
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
from mlip_assets.surrogates.finding import load_campaign
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
#: Materials that get a report of their own; all are examined.
REPORTED = ("silicon", "copper", "argon", "aluminium", "sodium-chloride", "magnesium-oxide")
#: The material whose equation of state the card shows.
PICTURED = "silicon"
#: Largest force in a frame near rest, eV/Å.
QUIET_EV_PER_A = 0.5
#: Frames of larger forces, eV/Å, weigh less, so that the same relative error costs the same. Of the
#: cores of two atoms more is wanted; in argon, whose wells are shallow, all is softer.
STIFF_EV_PER_A, STIFF_DIMER_EV_PER_A, STIFF_ARGON_EV_PER_A = 5.0, 10.0, 0.5


class TeacherResource(DftResource):
    """The teacher, whatever DFT program a campaign names."""

    def engine(self, settings: LabellingSettings, elements: Collection[str]) -> DftEngine:  # noqa: ARG002
        """Nothing about it can be set."""
        return TeacherEngine()


class InProcessCompute(ComputeResource):
    """Labels are computed in the calling process, where the teacher is loaded once."""

    def processes(self) -> Compute:
        """One at a time."""
        return InProcess()


@dataclass(frozen=True)
class Pass:
    """One round of exploration and labels, and the training on all labels up to it.

    Errors of a few meV/Å are all of argon's physics and nothing to silicon's, so argon frames weigh
    ``argon_weight`` times the others. Frames near rest carry lattice constants and elasticity but
    drown in those of the melts, so they weigh ``quiet_weight``, and stiff ones weigh less.
    """

    longer: int
    """Steps of each walker over those of the campaign file."""
    share: float
    """Labels over those of the campaign file."""
    max_epochs: int = 0
    learning_rate: float = 0.01
    argon_weight: float = 1.0
    quiet_weight: float = 1.0

    def weight(self, frame: Atoms) -> float:
        """Of a frame in the loss."""
        largest = float(np.linalg.norm(frame.arrays["REF_forces"], axis=1).max())
        weight = self.quiet_weight if largest < QUIET_EV_PER_A else 1.0
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
    """What a campaign has labelled in one pass."""

    campaign: Campaign
    frames: list[Atoms]
    isolated_energies: dict[str, float]


class Pipeline:
    """The pipeline's own assets up to the labels, with the teacher in the place of DFT."""

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
        """Run a campaign to its labels, unless they are there and newer than its settings."""
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
        for frame in database.labelled:  # the walkers of two campaigns share their names
            frame.info["walker"] = f"{campaign.name}/{frame.info.get('walker', 'none')}"
        return Labels(campaign, database.labelled, database.isolated_energies)


def campaign_of_pass(base: Campaign, number: int, student: TrainedModel | None) -> Campaign:
    """The campaign of a file as the teacher, or the student so far, explores it."""
    if student is None:
        return base
    kind, exploration = PASSES[number], base.exploration
    earlier = [base.name, *(f"{base.name}-{n}" for n in range(2, number + 1))]
    longer = {
        "surrogate": str(student.model_file),
        "n_steps": exploration.n_steps * kind.longer,
        "sample_every": exploration.sample_every * kind.longer // 2,
    }
    fewer = {
        "n_samples": max(4, round(base.sampling.n_samples * kind.share)),
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


def trained(
    labels: Iterable[Labels], kind: Pass, work: Path, student: TrainedModel | None, seed: int
) -> TrainedModel:
    """One model of all labels, from random weights or on from the student so far."""
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
    """Of all elements; the campaigns agree on those they share."""
    return {symbol: e for one in labels for symbol, e in one.isolated_energies.items()}


def of_composition(labels: Iterable[Labels], composition: str) -> list[Atoms]:
    """The labelled frames of all campaigns on one material."""
    return [a for one in labels if one.campaign.composition == composition for a in one.frames]


def reported(
    model: TrainedModel,
    metrics: dict[str, Any],
    learnt: list[Atoms],
    exam: list[Atoms],
    of: Labels,
    folder: Path,
) -> ModelReport:
    """The pipeline's report on one material, with the teacher as the surrogate it is beside."""
    labelled, campaign = [*learnt, *exam], of.campaign
    data_hash = dataset_sha256(labelled, of.isolated_energies)
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
        of.isolated_energies,
        held_out=HeldOut().with_split(exam, learnt),
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


def faults_of_pairs(model: TrainedModel) -> dict[str, list[str]]:
    """Every two elements whose energy does not rise all the way in, or has a step outside."""
    curves = pair_curves(model.calculator(dtype="float64"), model.elements)
    return {
        "not repulsive": [curve.pair for curve in curves if not curve.is_repulsive],
        "not smooth": [curve.pair for curve in curves if not curve.is_smooth],
    }


# --- files ---------------------------------------------------------------------------------------


def publish(model: TrainedModel, folder: Path, seed: int) -> None:
    """Export without pickle, and prove that the rebuilt weights are the trained ones."""
    import torch

    module = torch.load(model.model_file, map_location="cpu", weights_only=False)  # our own file
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
        raise RuntimeError(f"{folder / BUNDLED_NAME}: the rebuilt weights are not the trained ones")


def write_card(folder: Path, sections: dict[str, str]) -> None:
    """Replace what stands between the ``measured`` markers of the model card."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    card = (BUNDLED_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    body = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items())
    text = f"{card.split(begin)[0]}{begin}\n\n{body}\n\n{end}{card.split(end)[1]}"
    write_text(folder / "MODEL_CARD.md", text)


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table of the rows, numbers with three digits."""

    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)

    cells = [{k.replace("_", " "): shown(value) for k, value in row.items()} for row in rows]
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_of(table: Callable[[ModelReport], Any], reports: Mapping[str, ModelReport]) -> str:
    """One of the pipeline's own tables, of all materials under each other."""
    return markdown(
        {"material": name, **record.data}
        for name, report in reports.items()
        for record in table(report).records
    ).replace("| surrogate |", "| teacher |")


def error_rows(metrics: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """What :func:`evaluate` found, by composition."""
    for composition, found in metrics.items():
        ours, naive = (found[of]["test"] for of in ("splits", "mean_predictor"))
        errors = ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom", "stress_rmse_GPa")
        row = {"composition": composition, "frames": ours["n_frames"]}
        for error in errors:
            row |= {error: ours[error], f"of the mean {error.split('_')[0]}": naive[error]}
        yield row


def exploration_rows(data: Path, exam: Sequence[Labels]) -> Iterable[dict[str, Any]]:
    """How the walkers of the last pass ended, all driven by the model."""
    stored = TrajectoryIOManager(storage=Storage(root=str(data)))
    for one in exam:
        name, exploration = one.campaign.name, one.campaign.exploration
        walkers = stored.read(stored.place("surrogate_trajectory", name)).walkers
        stopped = [walker.stopped_by.split(":")[0] for walker in walkers if walker.stopped_by]
        yield {
            "campaign": name.rpartition("-")[0],
            "temperatures_K": ", ".join(f"{t:g}" for t in exploration.temperatures_K),
            "time_ps": exploration.n_steps * exploration.timestep_fs / 1e3,
            "walkers": len(walkers),
            "finished": len(walkers) - len(stopped),
            "others stopped by": ", ".join(dict.fromkeys(stopped)),
        }


def main() -> None:
    """Read the command line."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of all that is computed")
    parser.add_argument("--into", type=Path, default=BUNDLED_FOLDER, help="folder of the files")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--seed", type=int, default=20, help="of the trainings")
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
    """Make the model, examine it, and write its files."""
    bases = [load_campaign(file) for file in sorted(CAMPAIGNS.glob("*.yaml"))]
    pipeline = Pipeline(work, n_workers)
    learnt: list[Labels] = []
    model: TrainedModel | None = None
    for number, kind in enumerate(PASSES):
        again = [base for base in bases if number == 0 or base.refresh.enabled]
        campaigns = [campaign_of_pass(base, number, model) for base in again]
        labels = [pipeline.labels(campaign) for campaign in campaigns]
        if kind.max_epochs:
            learnt += labels
            model = trained(learnt, kind, work, model, seed + number)
            faults = faults_of_pairs(model)
            LOG.info("pairs of atoms: %s", faults)
    assert model is not None
    if faults["not repulsive"]:
        LOG.error("not published: pushed together, these atoms attract: %s", faults)
        sys.exit(1)

    metrics: dict[str, dict[str, Any]] = {}
    reports: dict[str, ModelReport] = {}
    for base, of in zip(again, labels, strict=True):
        train, test = (of_composition(part, base.composition) for part in (learnt, labels))
        if base.composition not in metrics:
            metrics[base.composition] = evaluate(model.model_file, {"train": train, "test": test})
        if base.name in REPORTED:
            reports[base.name] = reported(
                model, metrics[base.composition], train, test, of, work / "reports" / base.name
            )
    publish(model, into, seed)
    picture = pictures / f"bundled-{PICTURED}.png"
    picture.write_bytes(reports[PICTURED].pictures["crystal"])
    files = [into / f"{BUNDLED_NAME}.{suffix}" for suffix in ("json", "npz")]
    write_card(
        into,
        {
            "Errors on labels of the last pass": markdown(error_rows(metrics)),
            "Crystals": rows_of(crystal_table, reports),
            "Dynamics with a thermostat, then without": rows_of(trial_table, reports),
            "Two atoms": "\n".join(
                f"- {fault}: {', '.join(pairs) or 'none'}" for fault, pairs in faults.items()
            )
            + f"\n\nof all {len(model.elements) * (len(model.elements) + 1) // 2} pairs of elements.",
            "Explorations of the last pass": markdown(exploration_rows(pipeline.data, labels)),
            "Files": markdown({"file": f.name, "bytes": f.stat().st_size} for f in files)
            + f"\n\nsha256 of the state dict: `{model.weights_sha256}`",
        },
    )


if __name__ == "__main__":
    main()
