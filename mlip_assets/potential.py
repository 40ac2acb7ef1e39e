"""A MACE model as an ASE calculator that says the same of the same atoms, however often it was asked."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator


def keep_kernels() -> None:
    """Compute with the same kernels from the first call of this process to its last, on the CPU.

    TorchScript's fused kernels replace the others after a warm-up and round differently: with them
    a walker that resumes in a new process would leave its unbroken course.
    """
    import torch

    torch.jit.set_fusion_strategy([])


def mace_calculator(
    model: Path | torch.nn.Module, device: str = "cpu", **options: Any
) -> Calculator:
    """``MACECalculator`` of a ``.model`` file or a module.

    Parameters
    ----------
    model
        A file is unpickled: only from a source you trust.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.
    options
        Of ``MACECalculator``, such as ``default_dtype``.
    """
    with redirect_stdout(io.StringIO()):  # it announces the accelerators it did not find
        from mace.calculators import MACECalculator

    if device == "cpu":
        keep_kernels()
    source = {"model_paths": str(model)} if isinstance(model, Path) else {"models": [model]}
    calculator: Calculator = MACECalculator(**source, device=device, **options)
    return calculator
