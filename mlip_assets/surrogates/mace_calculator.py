"""MACE models: read from files, hashed, and wrapped as deterministic ASE calculators.

mace-torch prints and logs messages that need no action from a user. :func:`import_mace` suppresses
those of its import and of TorchScript; every calculator is made with an explicit precision, so that
none is logged.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator


#: Beginnings of the messages.
_IGNORED_WARNINGS = (
    "The TorchScript type system doesn't support",
    "Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
)


def import_mace() -> None:
    """Import mace-torch without messages on accelerators that are not installed.

    They are printed when ``mace.tools`` is first imported in a process. Call this before any other
    import of mace-torch, and before a ``.model`` file is unpickled. Two warnings are ignored as well:
    of TorchScript for each compiled module, and of ``torch.load`` for the constants of e3nn.
    """
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message, UserWarning)
    with redirect_stdout(io.StringIO()):
        import mace.tools  # noqa: F401


def load_mace_model(source: Path | IO[bytes]) -> torch.nn.Module:
    """The module in a ``.model`` file, on the CPU, in the precision in which it was saved.

    Parameters
    ----------
    source
        A path or an open file. It is unpickled, which runs code: use files from trusted sources
        only.
    """
    import torch

    import_mace()
    module: torch.nn.Module = torch.load(source, map_location="cpu", weights_only=False)
    return module


def disable_jit_fusion() -> None:
    """Disable the fused kernels of TorchScript in this process.

    They replace other kernels after a number of calls and round differently. A walker that resumes
    in a new process would therefore not give the frames of an uninterrupted run.
    """
    import torch

    torch.jit.set_fusion_strategy([])


def mace_calculator(
    model: Path | torch.nn.Module,
    device: str = "cpu",
    *,
    default_dtype: str | None = None,
    **options: Any,
) -> Calculator:
    """``MACECalculator`` of a ``.model`` file or a module; on the CPU its results are deterministic.

    Parameters
    ----------
    model
        A file is unpickled, which runs code: use files from trusted sources only. A module is
        converted in place to ``default_dtype``.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.
    default_dtype
        ``float32`` or ``float64``; None: the precision of the model.
    options
        Of ``MACECalculator``, such as ``head``.
    """
    import torch

    import_mace()
    from mace.calculators import MACECalculator

    if device == "cpu":
        disable_jit_fusion()
    module = load_mace_model(model) if isinstance(model, Path) else model
    dtype = default_dtype or str(next(module.parameters()).dtype).removeprefix("torch.")
    module = module.to(getattr(torch, dtype))
    calculator: Calculator = MACECalculator(
        models=[module], device=device, default_dtype=dtype, **options
    )
    return calculator


def state_dict_sha256(module: torch.nn.Module) -> str:
    """SHA-256 of names, types, shapes and bytes of the state dict, sorted by name.

    Unlike the hash of a ``.model`` file it is the same for every file of the same weights.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
