"""A trained potential with its errors, and how it is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mlip_assets.files import sha256_of_file, write_atomically, write_text

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator

MODEL_NAME, PARITY_NAME, METRICS_NAME = "model.model", "parity.npz", "metrics.json"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A MACE potential: where its file lies, where it came from and how well it does."""

    model_file: Path
    """A pickled ``torch.nn.Module``, as ``MACECalculator`` and LAMMPS exporters read it."""
    metrics: dict[str, Any]
    """What :func:`mlip_assets.training.evaluate` returns."""
    dataset_sha256: str
    """Of the labels and free atoms it was trained, validated and tested on."""
    weights_sha256: str
    """Of the weights; the same for every run of the same training on one machine."""
    parity: Mapping[str, NDArray[np.float64]]
    """``{split}_{energy|forces}_{reference|predicted}``: eV/atom (n,) and eV/Å (n_atoms, 3)."""
    elements: tuple[str, ...]
    """The only elements it knows, by atomic number."""
    start_from: str
    """``surrogate`` or ``scratch``."""
    wall_s: float
    """Wall time of the training, without what an interrupted run spent before it."""

    def calculator(
        self, device: str = "cpu", dtype: Literal["float32", "float64"] = "float32"
    ) -> Calculator:
        """An ASE calculator (energies, forces, stress). The model file is unpickled.

        float32 is what the model was trained in and right for molecular dynamics; float64 for
        relaxations, phonons and finite differences.
        """
        from mace.calculators import MACECalculator

        calculator: Calculator = MACECalculator(
            model_paths=str(self.model_file), device=device, default_dtype=dtype
        )
        return calculator

    def save(self, folder: Path) -> None:
        """Write ``model.model``, ``parity.npz`` and, last, ``metrics.json``, which commits them."""
        (folder / METRICS_NAME).unlink(missing_ok=True)  # from here on no older commit is valid
        with write_atomically(folder / MODEL_NAME) as aside:
            shutil.copyfile(self.model_file, aside)
        with write_atomically(folder / PARITY_NAME) as aside, aside.open("wb") as stream:
            np.savez_compressed(stream, **self.parity)  # type: ignore[arg-type]
        record = {
            "metrics": self.metrics,
            "elements": self.elements,
            "start_from": self.start_from,
            "dataset_sha256": self.dataset_sha256,
            "weights_sha256": self.weights_sha256,
            "model_file_sha256": sha256_of_file(self.model_file),
            "wall_s": self.wall_s,
        }
        write_text(folder / METRICS_NAME, json.dumps(record, indent=1, allow_nan=False) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; nothing is unpickled yet.

        Raises
        ------
        FileNotFoundError
            If the folder holds no committed model.
        ValueError
            If the model file is not the one the metrics belong to.
        """
        record = json.loads((folder / METRICS_NAME).read_text(encoding="utf-8"))
        model_file = folder / MODEL_NAME
        found = sha256_of_file(model_file)
        if found != record["model_file_sha256"]:
            raise ValueError(
                f"{model_file}: SHA-256 is {found}, but {METRICS_NAME} records "
                f"{record['model_file_sha256']}; the file was changed after training, do not load "
                "it; train again or restore it"
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
        )


def state_dict_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the state dict, in sorted order of the names.

    Unlike the hash of a ``.model`` file it is the same for every save of the same weights.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
