"""The bundled surrogate: a small MACE potential, stored as JSON and NumPy, not as a pickle.

``<name>.json`` has the architecture, the elements, the provenance and the SHA-256 of the weights;
``<name>.npz`` has the state dict. ``bundled/MODEL_CARD.md`` describes the model and its accuracy.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlip_assets.common.files import write_atomically
from mlip_assets.surrogates.mace_calculator import import_mace, state_dict_sha256

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
BUNDLED_NAME = "mace-8el"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"

_BLOCK_CLASSES = ("interaction_cls", "interaction_cls_first", "readout_cls")
_IRREPS = ("hidden_irreps", "MLP_irreps", "edge_irreps")
_ARRAYS = ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift")


def load_bundled(dtype: torch.dtype | None = None) -> torch.nn.Module:
    """Load the bundled eight-element MACE (O Na Mg Al Si Cl Ar Cu) on the CPU, in ``eval`` mode.

    Parameters
    ----------
    dtype
        Floating-point type of the weights; ``None``: the float32 of their training.

    Returns
    -------
    torch.nn.Module
        A ``mace.modules.ScaleShiftMACE`` (energies eV, lengths Å), ready for
        :func:`mlip_assets.surrogates.mace_calculator.mace_calculator`.

    Raises
    ------
    ValueError
        If the files are of another format version, or the weights do not have the recorded hash.
    """
    module = copy.deepcopy(_bundled())  # takes a tenth of the time of building the module
    return module if dtype is None else module.to(dtype)


@lru_cache
def _bundled() -> torch.nn.Module:
    return load_model(BUNDLED_FOLDER, BUNDLED_NAME)


def read_description(folder: Path, name: str) -> dict[str, Any]:
    """Read the JSON file of the weights: ``elements``, ``config``, ``provenance`` and others."""
    path = folder / f"{name}.json"
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {description.get('format_version')!r}, this code reads "
            f"{FORMAT_VERSION}; write it again with make bundled-model"
        )
    return description


def load_model(folder: Path, name: str) -> torch.nn.Module:
    """Rebuild a model written by :func:`export_model`; its hash is checked.

    Raises
    ------
    ValueError
        If the format version differs or the weights do not match the recorded sha256.
    """
    import torch

    import_mace()
    from mace.modules import ScaleShiftMACE

    description = read_description(folder, name)
    dtype = getattr(torch, description["dtype"])
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    outer_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # MACE creates buffers in the default type
    try:
        module: torch.nn.Module = ScaleShiftMACE(**_config_from_json(description["config"]))
        module.load_state_dict(state)
    finally:
        torch.set_default_dtype(outer_dtype)

    found = state_dict_sha256(module)
    if found != description["state_dict_sha256"]:
        raise ValueError(
            f"{folder / name}.npz: weights hash to {found}, but {name}.json records "
            f"{description['state_dict_sha256']}; the two files are of different exports"
        )
    return module.eval()


def export_model(
    model: torch.nn.Module, folder: Path, name: str, provenance: dict[str, Any] | None = None
) -> None:
    """Write a ``ScaleShiftMACE`` as ``folder/name.json`` + ``folder/name.npz``.

    Parameters
    ----------
    model
        The trained module. Configuration and weights are saved, but no code.
    folder, name
        Target folder, and the stem of both files.
    provenance
        How the model was made, as JSON values (teacher, versions, random seed).

    Raises
    ------
    ValueError
        If this format does not support the class or an option of the model.
    """
    import torch
    from ase.data import chemical_symbols
    from mace.tools.scripts_utils import extract_config_mace_model

    extracted = extract_config_mace_model(model)
    if "error" in extracted:
        raise ValueError(f"cannot export {type(model).__name__}: {extracted['error']}")
    state = {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    description = {
        "format_version": FORMAT_VERSION,
        "elements": [chemical_symbols[int(z)] for z in extracted["atomic_numbers"]],
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "state_dict_sha256": state_dict_sha256(model),
        "config": {key: _to_json(key, value) for key, value in extracted.items()},
        "provenance": {"torch": torch.__version__, **(provenance or {})},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / f"{name}.npz") as aside, aside.open("wb") as stream:
        np.savez_compressed(stream, **state)
    with write_atomically(folder / f"{name}.json") as aside:
        aside.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _to_json(key: str, value: Any) -> Any:
    """One entry of a MACE configuration as JSON; classes and functions by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if key in _BLOCK_CLASSES:
        return value.__name__
    if key in _IRREPS:
        return str(value)
    if key == "gate":
        return _gate_name(value)
    if key in (*_ARRAYS, "atomic_numbers", "radial_MLP", "heads", "avg_num_neighbors"):
        return np.asarray(value).tolist()
    raise ValueError(f"cannot export MACE option {key}={value!r}: this format does not support it")


def _gate_name(gate: Any) -> str:
    from mace.modules import gate_dict

    for name, function in gate_dict.items():
        if function is gate:
            return str(name)
    raise ValueError(
        f"cannot export gate {gate!r}: not one of MACE's {sorted(map(str, gate_dict))}"
    )


def _config_from_json(config: dict[str, Any]) -> dict[str, Any]:
    from e3nn.o3 import Irreps
    from mace.modules import gate_dict, interaction_classes, readout_classes

    rebuilt = dict(config)
    for key in _BLOCK_CLASSES:
        classes = readout_classes if key == "readout_cls" else interaction_classes
        rebuilt[key] = classes[config[key]]
    for key in _IRREPS:
        if config[key] is not None:
            rebuilt[key] = Irreps(config[key])
    for key in _ARRAYS:
        rebuilt[key] = np.asarray(config[key])
    if config["gate"] is not None:
        rebuilt["gate"] = gate_dict[config["gate"]]
    return rebuilt
