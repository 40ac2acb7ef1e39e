"""A MACE model as an ASE calculator that says the same of the same atoms, however often it was asked."""

from __future__ import annotations

import hashlib
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
