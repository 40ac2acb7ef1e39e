"""A trained potential with its errors and its origin, and the folder that stores it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.files import sha256_of_file, write_atomically, write_text
from mlip_assets.surrogates.mace_calculator import mace_calculator

if TYPE_CHECKING:
    import pandas as pd
    from ase.calculators.calculator import Calculator

MODEL_NAME, PARITY_NAME, METRICS_NAME = "model.model", "parity.npz", "metrics.json"
MEMBER_NAMES = "committee_*.model"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A MACE potential: its file, its origin and its errors."""

    model_file: Path
    """A pickled ``torch.nn.Module``, the format of ``MACECalculator`` and the LAMMPS exporter."""
    metrics: dict[str, Any]
    """The result of :func:`mlip_assets.training.evaluate`, ``n_left_out``, and ``training``:
    number of ``epochs``, whether it ``stopped_early``, the first ``stage_two_epoch``, the
    ``batch_size`` that was used, the number of replay structures (``n_replayed``), and the
    ``curve`` of :func:`mlip_assets.training.trainer.log.read_curve`. With a committee also
    ``uncertainty``, see :class:`mlip_assets.training.Calibration`."""
    dataset_sha256: str
    """Hash of the labels and isolated atoms used for training, validation and testing."""
    weights_sha256: str
    """Hash of the weights; equal for every run of the same training on one machine."""
    parity: Mapping[str, NDArray[np.float64]]
    """``{split}_{energy|forces}_{reference|predicted}``: eV/atom (n,) and eV/Å (n_atoms, 3)."""
    elements: tuple[str, ...]
    """The elements it supports, by atomic number: of the labels and of the replay structures."""
    start_from: str
    """``surrogate`` or ``scratch``."""
    wall_s: float
    """Wall time of the training, without that of an interrupted run before it."""
    members: tuple[Path, ...] = ()
    """Other members of the committee. Their spread is an estimate of the error."""

    def calculator(
        self, device: str = "cpu", dtype: Literal["float32", "float64"] = "float32"
    ) -> Calculator:
        """An ASE calculator (energies, forces, stress). The model file is unpickled.

        float32 is the precision of the training and is used for molecular dynamics; use float64 for
        relaxations, phonons and finite differences.
        """
        return mace_calculator(self.model_file, device, default_dtype=dtype)

    @property
    def force_rmse_eV_per_A(self) -> float:
        """RMSE of the force components on the held-out labels, eV/Å; infinite where it is not finite."""
        rmse = self.metrics["splits"]["test"]["force_rmse_meV_per_A"]
        return np.inf if rmse is None else rmse / 1000

    def expected_error(self, spread: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Expected force RMSE (n,), eV/Å, of frames whose committee spread is ``spread`` (n,), eV/Å.

        None without a committee, or with too few held-out labels to calibrate it.
        """
        scale = self.metrics.get("uncertainty", {}).get("scale")
        return None if scale is None else scale * spread

    def to_dataframe(self) -> pd.DataFrame:
        """Errors, one row per set of frames and predictor.

        ``split`` is ``train``, ``valid`` or ``test``; ``predictor`` is ``model`` or
        ``mean_predictor``. Where ``grouped_by`` is ``seed_kind`` or ``temperature_K``, the row is of
        the frames of one ``group``; else it is ``none``, and ``group`` is ``all``. Then ``n_frames``
        and the errors of :func:`mlip_assets.training.evaluate`, with units in their names.
        """
        import pandas as pd

        keys = ("split", "predictor", "grouped_by", "group")
        rows = [
            ((split, predictor, "none", "all"), errors)
            for predictor, name in (("model", "splits"), ("mean_predictor", "mean_predictor"))
            for split, errors in self.metrics[name].items()
        ]
        rows += [
            ((split, "model", grouped_by, group), errors)
            for grouped_by, name in (
                ("seed_kind", "by_seed_kind"),
                ("temperature_K", "by_temperature"),
            )
            for split, groups in self.metrics[name].items()
            for group, errors in groups.items()
        ]
        return pd.DataFrame([dict(zip(keys, of, strict=True)) | errors for of, errors in rows])

    def save(self, folder: Path) -> None:
        """Write models, ``parity.npz`` and, last, ``metrics.json``, which commits them.

        The folder contains ``model.model``, ``committee_1.model``, ``committee_2.model``, …
        """
        (folder / METRICS_NAME).unlink(
            missing_ok=True
        )  # from here on the folder has no committed model
        files = {folder / MODEL_NAME: self.model_file}
        files |= {_member(folder, i): file for i, file in enumerate(self.members, 1)}
        for path, file in files.items():
            with write_atomically(path) as aside:
                shutil.copyfile(file, aside)
        for older in set(folder.glob(MEMBER_NAMES)) - set(files):
            older.unlink()
        with write_atomically(folder / PARITY_NAME) as aside, aside.open("wb") as stream:
            np.savez_compressed(stream, **self.parity)  # type: ignore[arg-type]
        record = {
            "metrics": self.metrics,
            "elements": self.elements,
            "start_from": self.start_from,
            "dataset_sha256": self.dataset_sha256,
            "weights_sha256": self.weights_sha256,
            "model_file_sha256": sha256_of_file(self.model_file),
            "members_sha256": [sha256_of_file(path) for path in files][1:],
            "wall_s": self.wall_s,
        }
        write_text(folder / METRICS_NAME, json.dumps(record, indent=1, allow_nan=False) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the files of :meth:`save`; no model is unpickled.

        Raises
        ------
        FileNotFoundError
            The folder contains no committed model.
        ValueError
            The hash of a model file is not the recorded one.
        """
        record = json.loads((folder / METRICS_NAME).read_text(encoding="utf-8"))
        model_file = folder / MODEL_NAME
        hashes = record.get("members_sha256", [])
        members = tuple(_member(folder, i) for i in range(1, len(hashes) + 1))
        for file, expected in zip(
            [model_file, *members], [record["model_file_sha256"], *hashes], strict=True
        ):
            if (found := sha256_of_file(file)) != expected:
                raise ValueError(
                    f"{file}: SHA-256 is {found}, but {METRICS_NAME} records {expected}; the file "
                    "was changed after training, do not load it; train again or restore it"
                )
        with np.load(folder / PARITY_NAME, allow_pickle=False) as arrays:
            parity = {name: arrays[name] for name in arrays.files}
        return cls(
            model_file=model_file,
            metrics=record["metrics"],
            dataset_sha256=record["dataset_sha256"],
            weights_sha256=record["weights_sha256"],
            parity=parity,
            elements=tuple(record["elements"]),
            start_from=record["start_from"],
            wall_s=record["wall_s"],
            members=members,
        )


def _member(folder: Path, number: int) -> Path:
    return folder / MEMBER_NAMES.replace("*", str(number))
