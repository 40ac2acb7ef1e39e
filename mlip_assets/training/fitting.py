"""Fitting MACE to labels: the model and its committee, with errors on every set of the split."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from mlip_assets.campaign import GateSettings, TrainingSettings, fingerprint
from mlip_assets.common.files import locked, sha256_of_file
from mlip_assets.common.progress import ProgressReport
from mlip_assets.surrogates.mace_calculator import state_dict_sha256
from mlip_assets.training.committee import MEMBER_FRACTION, calibrate_committee, member_splits
from mlip_assets.training.errors import compute_metrics, predict, references
from mlip_assets.training.foundation import check_replay, elements_of, load_foundation_model
from mlip_assets.training.labels import check_labels, dataset_sha256, structure_sha256
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.replay import label_replay, read_structures
from mlip_assets.training.splits import HeldOut, Split, split_labels
from mlip_assets.training.trainer.options import (
    OPTIONS,
    SCRATCH_OPTIONS,
    STAGE_TWO_FRACTION,
    STAGE_TWO_LR_FACTOR,
    TUNING_LR_FACTOR,
)
from mlip_assets.training.trainer.process import TrainingError
from mlip_assets.training.trainer.run import train_once

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


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
    on_progress: Callable[[ProgressReport], None] | None = None,
) -> TrainedModel:
    """Train a MACE potential on energies, forces and, where labelled, stresses.

    The architecture is that of Batatia et al., "MACE: Higher Order Equivariant Message Passing
    Neural Networks", NeurIPS 2022. Training starts from random weights or from a foundation model.
    Naive fine-tuning trains all weights on the labels, without replay; the model then supports only
    the elements of the labels. Multi-head replay (Batatia et al., arXiv:2401.00096) also trains a
    second head on the predictions of the foundation model for other structures, and so keeps their
    elements; the returned model has the head of the labels only.

    The work folder is in ``work_dir``; the hashes of labels and settings give its name. An
    interrupted training resumes from its last checkpoint, and a finished model is returned without
    training. A batch that does not fit into the memory of the GPU is halved. The other members of
    a committee have their own folders, so the model itself does not depend on the committee.

    Parameters
    ----------
    labelled
        Labelled frames in any order (see :mod:`mlip_assets.training.labels`): ``REF_energy`` in eV,
        ``REF_forces`` (n_atoms, 3) in eV/Å, and ``REF_stress`` (3, 3) in eV/Å³ where periodic.
    isolated_energies
        Isolated-atom energy of each element (MACE's E0), eV, with the settings of the labels.
    settings
        Section ``training`` of a campaign. ``settings.device`` is not used; pass ``device``.
    work_dir
        Folder in which the work folder is made.
    seed
        Random seed of the split, the initial weights and the order of the batches.
    foundation_model
        ``.model`` file for ``start_from="surrogate"``. It is unpickled: use files from trusted
        sources only.
    device
        ``cpu`` (one thread), ``cuda`` or ``cuda:1``.
    held_out_file
        Record of the campaign's held-out frames (:class:`HeldOut`), written before the training;
        every later fit holds out the same frames. None: this fit has its own split.
    gates
        Gates by which the labels were accepted; None for the defaults.
    on_progress
        Called every few seconds with the number of epochs, and the loss and the errors of the last
        epoch on the validation set.

    Returns
    -------
    TrainedModel
        The model file, errors on all sets, training curve, and committee with its calibration.

    Raises
    ------
    LabelError
        The labels cannot be used for training.
    ValueError
        There are too few labels or distinct structures for a split, the replay structures cannot
        be used, or the foundation model is missing or does not support an element.
    TrainingError
        The trainer failed, did not train as requested, or the training diverged.

    Examples
    --------
    Fit EMT's copper for a few epochs:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase import Atoms
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from mlip_assets import TrainingSettings, fit_mace
    >>> labelled = []
    >>> for number in range(8):
    ...     frame = bulk("Cu") * (2, 1, 1)
    ...     frame.rattle(0.3, seed=number)
    ...     frame.calc = EMT()
    ...     frame.info["REF_energy"] = frame.get_potential_energy()
    ...     frame.arrays["REF_forces"] = frame.get_forces()
    ...     labelled.append(frame)
    >>> atom = Atoms("Cu", calculator=EMT())
    >>> settings = TrainingSettings(
    ...     start_from="scratch", num_channels=4, r_max=3.0, max_epochs=4, committee=1
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = fit_mace(
    ...         labelled,
    ...         {"Cu": atom.get_potential_energy()},
    ...         settings,
    ...         work_dir=Path(folder),
    ...         seed=0,
    ...     )
    >>> model.elements, model.metrics["training"]["epochs"]
    (('Cu',), 4)
    >>> sorted(model.metrics["splits"])
    ['test', 'train', 'valid']
    """
    check_labels(labelled, isolated_energies, gates)
    elements = elements_of(labelled)
    tuned = foundation_model if settings.start_from == "surrogate" else None
    if settings.start_from == "surrogate" and tuned is None:
        raise ValueError(
            "training.start_from: surrogate needs the surrogate's model file; pass "
            "foundation_model or set start_from: scratch"
        )
    foundation = load_foundation_model(tuned, elements) if tuned else None
    structures = read_structures(Path(settings.replay)) if settings.replay else []
    if foundation is not None and structures:
        check_replay(foundation, structures, str(settings.replay))
    split = _recorded_split(labelled, settings, seed, held_out_file)
    data_hash = dataset_sha256(labelled, isolated_energies)
    folder = work_dir / f"{data_hash[:16]}-{_settings_hash(settings, seed, split, foundation)[:16]}"
    finished = folder / f"result-of-{settings.committee}"
    with locked(folder / "lock", wait=True):
        if (finished / "metrics.json").exists():
            _log.info("training: the finished model in %s is used again", finished)
            return TrainedModel.open(finished)
        started = time.monotonic()
        replay = None
        if foundation is not None and structures:
            _log.info("training: the foundation model labels %d replay structures", len(structures))
            replay = label_replay(structures, foundation, seed)
        main, members, record = _train_committee(
            split,
            folder,
            seed,
            isolated_energies=isolated_energies,
            settings=settings,
            foundation_model=tuned,
            replay=replay,
            device=device,
            on_progress=on_progress,
        )
        model = _with_metrics(
            main,
            members,
            split,
            record,
            dataset_sha256=data_hash,
            elements=elements_of([*labelled, *structures]),
            start_from=settings.start_from,
            wall_s=time.monotonic() - started,
        )
        model.save(finished)
    return TrainedModel.open(finished)


def _settings_hash(
    settings: TrainingSettings, seed: int, split: Split, foundation: torch.nn.Module | None
) -> str:
    """SHA-256 of what determines the weights, apart from the labels."""
    return fingerprint(
        settings.stored(exclude={"device", "committee", "replay", "stability_steps"}),
        {
            "recipe": [
                OPTIONS,
                SCRATCH_OPTIONS,
                STAGE_TWO_FRACTION,
                STAGE_TWO_LR_FACTOR,
                MEMBER_FRACTION,
            ],
            "tuning_slowdown": TUNING_LR_FACTOR,
            "mace": version("mace-torch"),
            "seed": seed,
            "held_out": sorted(structure_sha256(frame) for frame in split.test),
            "foundation": state_dict_sha256(foundation) if foundation is not None else None,
            "replay": sha256_of_file(settings.replay) if settings.replay else None,
        },
    )


def _recorded_split(
    labelled: Sequence[Atoms], settings: TrainingSettings, seed: int, record: Path | None
) -> Split:
    split = partial(
        split_labels,
        labelled,
        valid_fraction=settings.valid_fraction,
        test_fraction=settings.test_fraction,
        seed=seed,
    )
    if record is None:
        return split()
    with locked(record.with_suffix(".lock"), wait=True):
        known = HeldOut.open(record)
        made = split(held_out=known)
        if made.left_out:
            _log.warning(
                "training: %d label(s) are left out, because they are near-duplicates both of "
                "held-out frames and of frames that an earlier training used",
                len(made.left_out),
            )
        extended = known.with_split(made.test, [*made.train, *made.valid])
        if extended != known:
            extended.save(record)
    return made


def _train_committee(
    split: Split, folder: Path, seed: int, *, settings: TrainingSettings, **task: Any
) -> tuple[Path, list[Path], dict[str, Any]]:
    """Files of the main model and of the other members, and the record of the main training."""
    main, record = train_once(split, folder=folder, seed=seed, settings=settings, **task)
    members = []
    for number, part in enumerate(member_splits(split, settings.committee - 1, seed=seed), 1):
        _log.info("training: member %d of a committee of %d", number + 1, settings.committee)
        member, _ = train_once(
            part,
            folder=folder / f"committee_{number}",
            seed=(seed + number) % 2**32,
            settings=settings,
            **task,
        )
        members.append(member)
    return main, members, record


def _with_metrics(
    model_file: Path,
    members: Sequence[Path],
    split: Split,
    training: Mapping[str, Any],
    **origin: Any,
) -> TrainedModel:
    """The trained model with its errors on every set, and the calibration of its committee."""
    import torch

    predicted = predict(model_file, split.by_name)
    metrics = compute_metrics(split.by_name, predicted) | {
        "n_left_out": len(split.left_out),
        "training": training,
    }
    if metrics["splits"]["train"]["force_rmse_meV_per_A"] is None:
        raise TrainingError(
            "the training diverged (the forces are not finite); lower training.learning_rate"
        )
    converged, calibration = calibrate_committee(split, predicted, members)
    if calibration is not None:
        metrics["uncertainty"] = asdict(calibration)
    module = torch.load(model_file, map_location="cpu", weights_only=False)
    parity = {
        f"{name}_{quantity}_{source}": array
        for name, frames in split.by_name.items()
        for source, properties in (
            ("reference", references(frames)),
            ("predicted", predicted[name]),
        )
        for quantity, array in (("energy", properties.energies), ("forces", properties.forces))
    }
    return TrainedModel(
        model_file=model_file,
        metrics=metrics,
        weights_sha256=state_dict_sha256(module),
        parity=parity,
        members=converged,
        **origin,
    )
