"""Fitting MACE to labels with its own trainer, resumably."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.data import atomic_numbers
from ase.io import write

from mlip_assets.campaign import GateSettings, TrainingSettings, fingerprint
from mlip_assets.common.files import locked, sha256_of_file, write_atomically, write_text
from mlip_assets.common.progress import Progress, Standing
from mlip_assets.surrogates.mace_calculator import state_dict_sha256
from mlip_assets.training.committee import SHARE, calibrated, member_splits
from mlip_assets.training.curve import read_curve
from mlip_assets.training.errors import Properties, metrics_of, predict, references
from mlip_assets.training.held_out import HeldOut
from mlip_assets.training.labels import (
    WEIGHT_KEY,
    check_labels,
    dataset_sha256,
    structure_sha256,
)
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.replay import (
    LABEL_HEAD,
    Replay,
    keep_label_head,
    read_structures,
    replayed,
)
from mlip_assets.training.splits import Split, split_labels
from mlip_assets.training.trainer import (
    OutOfMemoryError,
    TrainingError,
    run_trainer,
    verify_log,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

#: Options that hold for every fit. float32: measured equal to float64 in its errors and 1.3 times
#: faster, and molecular dynamics runs in it. The energies converge in stage two, where their
#: weight is raised. The stress, small in eV/Å³, needs its large weight: with 100 it stays as bad
#: as the mean predictor's, with 5000 its error is a third of that and the forces lose nothing.
OPTIONS: dict[str, object] = {
    "model": "MACE",
    "default_dtype": "float32",
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "stress_key": "REF_stress",
    "energy_weight": 10,
    "forces_weight": 100,
    "stress_weight": 5000,
    "swa": True,
    "swa_energy_weight": 1000,
    "swa_forces_weight": 100,
    "swa_stress_weight": 5000,
    "ema": True,
    "ema_decay": 0.99,
    "amsgrad": True,
    "eval_interval": 1,
    "error_table": "PerAtomRMSE",
    "plot": False,
    "save_cpu": True,
    "restart_latest": True,
    # Without this it deletes a checkpoint before it writes the next; _EpochWatcher deletes after.
    "keep_checkpoints": True,
}
#: A model from random weights: small, and with a Ziegler-Biersack-Littmark core so that atoms
#: pushed together repel where there are no labels.
SCRATCH_OPTIONS: dict[str, object] = {
    "num_interactions": 2,
    "max_ell": 2,
    "num_radial_basis": 8,
    "radial_MLP": "[32, 32]",
    "MLP_irreps": "16x0e",
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
}
#: Stage two: the last epochs, at a learning rate lowered by this factor.
STAGE_TWO_SHARE = 0.25
STAGE_TWO_SLOWDOWN = 0.2
#: Weights that are good already are moved less. Measured on 30 silicon labels: 0.002 leaves the
#: lowest held-out errors, 0.01 spoils them a little; from random weights 0.01 beats 0.005.
TUNING_SLOWDOWN = 0.2
NAME = "mace"
#: The trainer's words -> ours.
_FIGURES = {
    "loss": "loss",
    "RMSE_E_per_atom": "energy_rmse_meV_per_atom",
    "RMSE_F": "force_rmse_meV_per_A",
}
#: Of either stage: the newest may be half-written when the trainer is killed.
KEPT_CHECKPOINTS = 2


def fit_mace(
    labelled: Sequence[Atoms],
    isolated_energies: Mapping[str, float],
    settings: TrainingSettings,
    *,
    work_dir: Path,
    seed: int,
    foundation_model: Path | None = None,
    device: str = "cpu",
    held_out_file: Path | None = None,
    gates: GateSettings | None = None,
    on_told: Callable[[Standing], None] | None = None,
) -> TrainedModel:
    """Train a MACE potential on energies, forces and, where labelled, stresses.

    Batatia et al., "MACE: Higher Order Equivariant Message Passing Neural Networks", NeurIPS 2022;
    from a foundation model by naive fine-tuning (all weights, no replay), which keeps only the
    elements of the labels, or by multi-head replay (Batatia et al., arXiv:2401.00096), which trains
    a second head on what the foundation model says of other structures, keeps their elements too,
    and hands over the head of the labels alone. A batch that does not fit into the GPU is halved.
    Work lies in a folder of ``work_dir`` named by the hashes of the labels and the settings: a
    killed training goes on from its last checkpoint, and a finished one is returned as it is. The
    further members of a committee lie in folders of their own within it, so the model itself is the
    same with and without one.

    Parameters
    ----------
    labelled
        Labelled frames (see :mod:`mlip_assets.training.labels`), in any order.
    isolated_energies
        Energy of the free atom of each element, eV, computed as the labels were.
    settings
        What to train; ``settings.device`` is left to the caller, who passes ``device``.
    work_dir
        Where the work folder is made.
    seed
        Of the split, the initial weights and the order of the batches.
    foundation_model
        The ``.model`` file that ``start_from="surrogate"`` tunes. It is unpickled: only from a
        source you trust.
    device
        ``cpu`` (one thread), ``cuda`` or ``cuda:1``.
    held_out_file
        Where a campaign records what it holds out (:class:`HeldOut`), before it trains: every
        later fit holds out the same. None: a split of its own.
    gates
        By which the labels were accepted; None for the defaults.
    on_told
        Called every few seconds with the epochs done and the last one's loss and errors on the
        frames that pick the epoch.

    Raises
    ------
    LabelError
        The labels cannot be trained on.
    ValueError
        No split can be made, the replay cannot be used, or the foundation model is missing or lacks
        an element of the labels or the replay.
    TrainingError
        The trainer failed, did not do what was asked, or diverged.
    """
    check_labels(labelled, isolated_energies, gates)
    elements = _elements_of(labelled)
    tuned = foundation_model if settings.start_from == "surrogate" else None
    if settings.start_from == "surrogate" and tuned is None:
        raise ValueError(
            "training.start_from: surrogate needs the surrogate's model file; pass "
            "foundation_model or set start_from: scratch"
        )
    foundation = _foundation(tuned, elements) if tuned else None
    structures = read_structures(Path(settings.replay)) if settings.replay else []
    if foundation is not None and structures:
        _require_replayable(foundation, structures, str(settings.replay))
    split = _recorded_split(labelled, settings, seed, held_out_file)
    data_hash = dataset_sha256(labelled, isolated_energies)
    settings_hash = fingerprint(
        settings.stored(exclude={"device", "committee", "replay", "stability_steps"}),
        {
            "recipe": [OPTIONS, SCRATCH_OPTIONS, STAGE_TWO_SHARE, STAGE_TWO_SLOWDOWN, SHARE],
            "tuning_slowdown": TUNING_SLOWDOWN,
            "mace": version("mace-torch"),
            "seed": seed,
            "held_out": sorted(structure_sha256(frame) for frame in split.test),
            "foundation": state_dict_sha256(foundation) if foundation is not None else None,
            "replay": sha256_of_file(settings.replay) if settings.replay else None,
        },
    )
    folder = work_dir / f"{data_hash[:16]}-{settings_hash[:16]}"
    finished = folder / f"result-of-{settings.committee}"
    with locked(folder / "lock", wait=True):
        if (finished / "metrics.json").exists():
            _log.info("training: reusing the finished model in %s", finished)
            return TrainedModel.open(finished)
        started = time.monotonic()
        replay = None
        if foundation is not None and structures:
            _log.info(
                "training: the foundation model labels %d replayed structures", len(structures)
            )
            replay = replayed(structures, foundation, seed)
        train = partial(
            _trained,
            isolated_energies=isolated_energies,
            settings=settings,
            foundation_model=tuned,
            replay=replay,
            device=device,
            on_told=on_told,
        )
        main, told = train(split, folder=folder, seed=seed)
        members = []
        for number, own in enumerate(member_splits(split, settings.committee - 1, seed=seed), 1):
            _log.info("training: member %d of a committee of %d", number + 1, settings.committee)
            place = folder / f"committee_{number}"
            members.append(train(own, folder=place, seed=(seed + number) % 2**32)[0])
        model = _measured(
            main,
            members,
            split,
            told,
            dataset_sha256=data_hash,
            elements=_elements_of([*labelled, *structures]),
            start_from=settings.start_from,
            wall_s=time.monotonic() - started,
        )
        model.save(finished)
    return TrainedModel.open(finished)


def _recorded_split(
    labelled: Sequence[Atoms], settings: TrainingSettings, seed: int, record: Path | None
) -> Split:
    def split(held_out: HeldOut) -> Split:
        return split_labels(
            labelled,
            valid_fraction=settings.valid_fraction,
            test_fraction=settings.test_fraction,
            seed=seed,
            held_out=held_out,
        )

    if record is None:
        return split(HeldOut())
    with locked(record.with_suffix(".lock"), wait=True):
        known = HeldOut.open(record)
        made = split(known)
        if made.left_out:
            _log.warning(
                "training: %d label(s) are left out, being near-duplicates both of held-out frames "
                "and of frames trained on before",
                len(made.left_out),
            )
        grown = known.with_split(made.test, [*made.train, *made.valid])
        if grown != known:
            grown.save(record)
    return made


def _trained(split: Split, *, folder: Path, **task: Any) -> tuple[Path, dict[str, Any]]:
    """What :func:`_train` gives, kept once the training has ended and been verified."""
    ended, told_file = folder / f"{NAME}.trained.model", folder / f"{NAME}.trained.json"
    if not ended.exists():
        model_file, told = _train(split, folder=folder, **task)
        write_text(told_file, json.dumps(told))
        with write_atomically(ended) as aside:
            shutil.copyfile(model_file, aside)
    return ended, json.loads(told_file.read_text(encoding="utf-8"))


def _train(
    split: Split,
    *,
    isolated_energies: Mapping[str, float],
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    foundation_model: Path | None,
    replay: Replay | None,
    device: str,
    on_told: Callable[[Standing], None] | None,
) -> tuple[Path, dict[str, Any]]:
    """Where the trained model lies, of one head, and what is to be told of its training."""
    energies = {atomic_numbers[e]: float(isolated_energies[e]) for e in _elements_of(split.train)}
    arguments = {
        **OPTIONS,
        **_course(split, settings, seed, is_tuned=foundation_model is not None),
        **_start(settings, foundation_model),
        "E0s": str(energies),
    }
    for name in ("train", "valid"):
        _write_frames(folder / f"{name}.xyz", split.by_name[name])
    if replay:
        arguments |= _replay_head(replay, energies, arguments["batch_size"], folder)
    _log.info(
        "training: MACE from %s on %d frames, %d to pick the epoch, %d held out; log: %s",
        foundation_model.name if foundation_model else "random weights",
        *(len(frames) for frames in split.by_name.values()),
        folder / "train.log",
    )
    watcher = _EpochWatcher(settings.max_epochs, folder / "checkpoints", on_told)
    lines = _run_in_memory(arguments, folder, device, watcher)
    watcher.end()
    verify_log(
        lines,
        isolated_energies=energies,
        n_train=len(split.train),
        n_valid=len(split.valid),
        foundation_model=foundation_model,
        n_replay=(len(replay.train), len(replay.valid)) if replay else None,
    )
    model_file = folder / f"{NAME}_stagetwo.model"
    if replay:
        model_file = keep_label_head(model_file, folder / f"{NAME}_labels.model", split.train[0])
    curve = read_curve(folder / "results" / f"{NAME}_run-{seed}_train.txt")
    epochs = [epoch for epoch in curve["epoch"] if epoch is not None]
    return model_file, {
        "epochs": len(epochs),
        "stopped_early": len(epochs) < settings.max_epochs,
        "stage_two_epoch": min(epoch for epoch in epochs if epoch >= arguments["start_swa"]),
        "batch_size": arguments["batch_size"],
        "n_replayed": len(replay.train) + len(replay.valid) if replay else 0,
        "curve": curve,
    }


def _course(
    split: Split, settings: TrainingSettings, seed: int, *, is_tuned: bool
) -> dict[str, Any]:
    """The trainer's options on data, batches and epochs."""
    with_stress = any("REF_stress" in frame.info for frame in split.train)
    learning_rate = settings.learning_rate * (TUNING_SLOWDOWN if is_tuned else 1)
    # Two epochs at least: one that runs out of patience in stage one skips the first of stage two.
    start_stage_two = min(
        round(settings.max_epochs * (1 - STAGE_TWO_SHARE)), settings.max_epochs - 2
    )
    return {
        "name": NAME,
        "seed": seed,
        **{f"{kind}_dir": "." for kind in ("work", "model")},
        **{f"{kind}_dir": kind for kind in ("checkpoints", "results", "log")},
        "train_file": "train.xyz",
        "valid_file": "valid.xyz",
        "loss": "stress" if with_stress else "weighted",
        "batch_size": min(settings.batch_size, len(split.train)),
        "valid_batch_size": min(settings.batch_size, len(split.valid)),
        "max_num_epochs": settings.max_epochs,
        "start_swa": start_stage_two,
        "patience": settings.patience or settings.max_epochs,
        "lr": learning_rate,
        "swa_lr": learning_rate * STAGE_TWO_SLOWDOWN,
        "scheduler_patience": max(5, settings.max_epochs // 10),
    }


def _start(settings: TrainingSettings, foundation_model: Path | None) -> dict[str, Any]:
    """The trainer's options on where it starts: a model, or an architecture."""
    if foundation_model:
        return {"foundation_model": foundation_model.resolve(), "multiheads_finetuning": "False"}
    return SCRATCH_OPTIONS | {
        "num_channels": settings.num_channels,
        "max_L": settings.max_L,
        "correlation": settings.correlation,
        "r_max": settings.r_max,
    }


def _replay_head(
    replay: Replay, energies: Mapping[int, float], batch_size: int, folder: Path
) -> dict[str, Any]:
    """The trainer's options on replay, whose structures are written."""
    _write_frames(folder / "replay_train.xyz", replay.train)
    _write_frames(folder / "replay_valid.xyz", replay.valid)
    # Elements that no label holds stay where the foundation model has them.
    foreign = {atomic_numbers[e]: energy for e, energy in replay.atomic_energies.items()}
    return {
        "multiheads_finetuning": "True",
        "E0s": str(foreign | dict(energies)),
        "pt_train_file": "replay_train.xyz",
        "pt_valid_file": "replay_valid.xyz",
        "force_mh_ft_lr": "True",  # no bare flag
        # A head with less than a batch has none: the trainer drops what does not fill one.
        "batch_size": min(batch_size, len(replay.train)),
    }


def _run_in_memory(
    arguments: dict[str, Any], folder: Path, device: str, on_line: Callable[[str], None]
) -> list[str]:
    """Run the trainer from its last checkpoint, with half the batch each time it does not fit."""
    while True:
        _drop_torn_checkpoints(folder / "checkpoints")
        try:
            return run_trainer(arguments, folder, device=device, on_line=on_line)
        except OutOfMemoryError:
            if arguments["batch_size"] == 1:
                raise
            for key in ("batch_size", "valid_batch_size"):
                arguments[key] = max(1, arguments[key] // 2)
            _log.warning(
                "training: the batch does not fit into the memory of %s; going on with batch_size %d",
                device,
                arguments["batch_size"],
            )


class _EpochWatcher:
    """Turns the trainer's lines into progress, and deletes the checkpoints it has outrun."""

    def __init__(
        self, n_epochs: int, checkpoints: Path, on_told: Callable[[Standing], None] | None
    ) -> None:
        self._n_epochs, self._on_told = n_epochs, on_told
        self._checkpoints = checkpoints
        self._progress: Progress | None = None

    def __call__(self, line: str) -> None:
        epoch = re.search(rf"INFO: Epoch (\d+): head: {LABEL_HEAD}, ", line)
        if epoch is None:
            return
        done = int(epoch.group(1)) + 1
        if self._progress is None:
            self._progress = Progress(
                "training", self._n_epochs, "epochs", already_done=done - 1, on_told=self._on_told
            )
        figures = {
            name: value
            for word, name in _FIGURES.items()
            if (value := _after(word, line)) is not None
        }
        self._progress.advance(done - self._progress.done, **figures)
        self._drop_old_checkpoints()

    def end(self) -> None:
        """Tell where a training that stopped early has come to."""
        if self._progress is not None:
            self._progress.end()

    def _drop_old_checkpoints(self) -> None:
        for stage in (r"epoch-(\d+)\.pt", r"epoch-(\d+)_swa\.pt"):
            found = {
                int(match.group(1)): path
                for path in self._checkpoints.glob("*.pt")
                if (match := re.search(stage, path.name))
            }
            for old in sorted(found)[:-KEPT_CHECKPOINTS]:
                found[old].unlink()


def _after(word: str, line: str) -> float | None:
    """The finite number that follows ``word=``."""
    found = re.search(rf"{word}=\s*(\S+?),?(\s|$)", line)
    return float(found.group(1)) if found and math.isfinite(float(found.group(1))) else None


def _measured(
    model_file: Path,
    members: Sequence[Path],
    split: Split,
    training: Mapping[str, Any],
    **origin: Any,
) -> TrainedModel:
    """The trained model with its errors on every set, and what its committee knows of them."""
    import torch

    predicted = predict(model_file, split.by_name)
    metrics = metrics_of(split.by_name, predicted) | {
        "n_left_out": len(split.left_out),
        "training": training,
    }
    if metrics["splits"]["train"]["force_rmse_meV_per_A"] is None:
        raise TrainingError(
            "the training diverged (the forces are not finite); lower training.learning_rate"
        )
    kept, calibration = calibrated(split, predicted, members)
    if calibration is not None:
        metrics["uncertainty"] = asdict(calibration)
    module = torch.load(model_file, map_location="cpu", weights_only=False)
    parity = {
        f"{name}_{quantity}_{origin_of}": array
        for name, frames in split.by_name.items()
        for origin_of, properties in (
            ("reference", references(frames)),
            ("predicted", predicted[name]),
        )
        for quantity, array in _plotted(properties).items()
    }
    return TrainedModel(
        model_file=model_file,
        metrics=metrics,
        weights_sha256=state_dict_sha256(module),
        parity=parity,
        members=kept,
        **origin,
    )


def _plotted(properties: Properties) -> dict[str, Any]:
    return {"energy": properties.energies, "forces": properties.forces}


def _write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Structure, labels and weight alone; a frame without a stress is given none in the loss."""
    bare = []
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.arrays["REF_forces"] = frame.arrays["REF_forces"]
        for key in ("REF_energy", "REF_stress", WEIGHT_KEY):
            if key in frame.info:
                atoms.info[key] = frame.info[key]
        bare.append(atoms)
    with write_atomically(path) as aside:
        write(aside, bare, format="extxyz")


def _drop_torn_checkpoints(folder: Path) -> None:
    """Remove checkpoints a killed trainer left half-written, which it would stumble over.

    The trainer writes them in place; being zip archives, they end with their directory.
    """
    for checkpoint in folder.glob("*.pt"):
        if not zipfile.is_zipfile(checkpoint):
            _log.warning("training: %s is half-written and is removed", checkpoint)
            checkpoint.unlink()


def _elements_of(frames: Sequence[Atoms]) -> tuple[str, ...]:
    symbols = {symbol for frame in frames for symbol in frame.get_chemical_symbols()}
    return tuple(sorted(symbols, key=atomic_numbers.__getitem__))


def _foundation(model_file: Path, elements: Sequence[str]) -> torch.nn.Module:
    """The foundation model, having checked that it knows the elements of the labels."""
    import mace  # noqa: F401  (the classes the pickle names)
    import torch

    if not model_file.is_file():
        raise ValueError(f"foundation model {model_file} does not exist")
    module: torch.nn.Module = torch.load(model_file, map_location="cpu", weights_only=False)
    missing = _unknown_to(module, elements)
    if missing:
        raise ValueError(
            f"foundation model {model_file} does not know {', '.join(missing)}; set "
            "training.start_from: scratch or explore with a surrogate that does"
        )
    return module


def _require_replayable(
    foundation: torch.nn.Module, structures: Sequence[Atoms], replay: str
) -> None:
    missing = _unknown_to(foundation, _elements_of(structures))
    if missing:
        raise ValueError(
            f"training.replay: {replay} holds {', '.join(missing)}, which the foundation model does "
            "not know and cannot replay; leave these structures out"
        )
    heads = list(getattr(foundation, "heads", []))
    if len(heads) > 1:
        raise ValueError(
            f"training.fine_tuning: the foundation model has the heads {', '.join(heads)}, and it "
            "does not follow which to replay; keep one of them with mace_select_head, or write "
            "'fine_tuning: naive'"
        )


def _unknown_to(module: torch.nn.Module, elements: Sequence[str]) -> list[str]:
    numbers: Any = module.atomic_numbers
    known = {int(z) for z in numbers}
    return [element for element in elements if atomic_numbers[element] not in known]
