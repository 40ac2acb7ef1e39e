"""The foundation model that fine-tuning starts from, and its elements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.data import atomic_numbers

if TYPE_CHECKING:
    import torch


def elements_of(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """All elements of the frames, by atomic number."""
    symbols = {symbol for frame in frames for symbol in frame.get_chemical_symbols()}
    return tuple(sorted(symbols, key=atomic_numbers.__getitem__))


def load_foundation_model(model_file: Path, elements: Sequence[str]) -> torch.nn.Module:
    """Load a MACE model and check that it supports all ``elements``.

    Parameters
    ----------
    model_file
        A ``.model`` file. It is unpickled: use files from trusted sources only.
    elements
        Chemical symbols of the labels.

    Raises
    ------
    ValueError
        The file does not exist, or the model does not support an element.
    """
    import mace  # noqa: F401  (the classes that the pickle names)
    import torch

    if not model_file.is_file():
        raise ValueError(f"foundation model {model_file} does not exist")
    module: torch.nn.Module = torch.load(model_file, map_location="cpu", weights_only=False)
    missing = _unsupported(module, elements)
    if missing:
        raise ValueError(
            f"foundation model {model_file} does not support {', '.join(missing)}; set "
            "training.start_from: scratch or explore with a surrogate that does"
        )
    return module


def check_replay(foundation: torch.nn.Module, structures: Sequence[Atoms], file: str) -> None:
    """Check that the foundation model can label the replay structures of ``file``.

    Raises
    ------
    ValueError
        It does not support one of their elements, or it has several heads.
    """
    missing = _unsupported(foundation, elements_of(structures))
    if missing:
        raise ValueError(
            f"training.replay: {file} contains {', '.join(missing)}, which the foundation model "
            "does not support; remove these structures"
        )
    heads = list(getattr(foundation, "heads", []))
    if len(heads) > 1:
        raise ValueError(
            f"training.fine_tuning: the foundation model has the heads {', '.join(heads)}, and "
            "replay needs exactly one; select one with mace_select_head, or write "
            "'fine_tuning: naive'"
        )


def _unsupported(module: torch.nn.Module, elements: Sequence[str]) -> list[str]:
    numbers: Any = module.atomic_numbers
    supported = {int(z) for z in numbers}
    return [element for element in elements if atomic_numbers[element] not in supported]
