"""MACE: the bundled weights, the checkpoints mace-torch fetches by name, and any model file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlip_assets.campaign import (
    BUNDLED_SURROGATE,
    NAMED_SURROGATES,
    OWN_SURROGATE,
    Engine,
    EngineChoice,
    nearest,
)
from mlip_assets.common.files import sha256_of_file, write_atomically
from mlip_assets.surrogates.committee import unite
from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.surrogates.models.bundled import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    load_bundled,
    read_description,
)
from mlip_assets.surrogates.surrogate import Surrogate, SurrogateError, require_package
from mlip_assets.surrogates.torchsim import TorchSimCalculator

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator

#: Our names -> the names mace-torch's downloader knows. Its models with several heads are left
#: out: a name does not say which level of theory is meant.
MACE_TORCH_NAMES: dict[str, str] = {
    "mace-mp-0": "medium",
    "mace-mp-0-small": "small",
    "mace-mp-0-large": "large",
    "mace-mp-0b": "medium-0b",
    "mace-mp-0b-small": "small-0b",
    "mace-mp-0b2": "medium-0b2",
    "mace-mp-0b2-small": "small-0b2",
    "mace-mp-0b2-large": "large-0b2",
    "mace-mp-0b3": "medium-0b3",
    "mace-mpa-0": "medium-mpa-0",
    "mace-omat-0": "medium-omat-0",
    "mace-omat-0-small": "small-omat-0",
    "mace-matpes-pbe-0": "mace-matpes-pbe-0",
    "mace-matpes-r2scan-0": "mace-matpes-r2scan-0",
}

#: What is worth a batch on the CPU; larger cells keep a core busy one by one.
FEWEST_BATCHED, LARGEST_BATCHED_ON_CPU = 4, 32
#: A larger batch falls out of a processor's cache and gains nothing any more.
CPU_BATCH_ATOMS = 256


@dataclass(frozen=True)
class MaceSurrogate(Surrogate):
    """A MACE potential."""

    file: Path | None
    """The ``.model`` file; None for the bundled weights."""
    known_elements: tuple[str, ...] | None = None
    """Where something other than the weights says so."""

    def module(self) -> torch.nn.Module:
        """The torch module, on the CPU, in the types it was saved in; the caller's own.

        A ``.model`` file is a pickle and loading one runs code: what is unpickled has the hash
        that was found, and checked where the campaign states one.
        """
        import torch

        if self.file is None:
            return load_bundled(getattr(torch, self.dtype))
        return _unclaimed.pop(self.sha256, None) or _unpickled(self.file, self.sha256)

    def build(self, device: str) -> Calculator:
        """``MACECalculator``, on NVIDIA's kernels where there is a GPU and they are installed."""
        return mace_calculator(
            self.module(),
            device,
            default_dtype=self.dtype,
            enable_cueq=kernels(device) == "cuequivariance",
        )

    def build_batched(self, device: str) -> Calculator:
        """The same weights in torch-sim's ``MaceModel``."""
        import torch

        with redirect_stdout(io.StringIO()):
            from torch_sim.models.mace import MaceModel

            model = MaceModel(
                self.module(),
                device=torch.device(device),
                dtype=getattr(torch, self.dtype),
                enable_cueq=kernels(device) == "cuequivariance",
            )
        place = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
        return TorchSimCalculator(
            model,
            r_cut=float(model.r_max),
            batch_atoms=CPU_BATCH_ATOMS if device == "cpu" else None,
            limits=_cache_folder() / "batch_limits.json",
            limited=f"{self.sha256} {self.dtype} on {place}",
        )

    def engine(self, wanted: EngineChoice, n_atoms: Sequence[int]) -> Engine:
        """torch-sim, where it is installed, on GPUs, and on the CPU for many small cells."""
        if wanted == "torchsim":
            require_package("torch_sim", "torchsim", "md_backend: torchsim")
        if wanted != "auto":
            return wanted
        gains = self.device.startswith("cuda") or (
            len(n_atoms) >= FEWEST_BATCHED and max(n_atoms) <= LARGEST_BATCHED_ON_CPU
        )
        return "torchsim" if gains and find_spec("torch_sim") is not None else "ase"

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols the weights know; a file that nothing describes is unpickled."""
        if self.known_elements is not None:
            return self.known_elements
        assert self.file is not None
        return _elements_in_file(self.file, self.sha256)

    def save_model(self, path: Path) -> Path:
        """Write the module as the ``.model`` file that mace-torch's trainer fine-tunes from."""
        import torch

        with write_atomically(path) as temporary, temporary.open("wb") as stream:
            torch.save(self.module(), stream)
        return path

    def metadata(self) -> dict[str, Any]:
        """As every surrogate; and which kernels do the tensor products."""
        return {**super().metadata(), "kernels": kernels(self.device)}


class TrainedFiles(Protocol):
    """A trained potential on disk, such as :class:`mlip_assets.training.TrainedModel`."""

    @property
    def model_file(self) -> Path:
        """The ``.model`` file."""

    @property
    def members(self) -> Sequence[Path]:
        """The ``.model`` files of the other members of its committee."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols it was trained on."""


def own_model(trained: TrainedFiles, *, devices: tuple[str, ...], dtype: str) -> Surrogate:
    """A model that the campaign has trained, with its committee, whose first member it is."""
    main, *others = (
        MaceSurrogate(OWN_SURROGATE, sha256_of_file(file), devices, dtype, file, trained.elements)
        for file in (trained.model_file, *trained.members)
    )
    return replace(unite([main, *others]), name=OWN_SURROGATE) if others else main


def find(name: str, *, devices: tuple[str, ...], dtype: str) -> MaceSurrogate:
    """Bundled weights, a checkpoint by name, or a file.

    Raises
    ------
    SurrogateError
        No such file, or a failed download.
    """
    if name == BUNDLED_SURROGATE:
        described = read_description(BUNDLED_FOLDER, BUNDLED_NAME)
        sha256, elements = described["state_dict_sha256"], tuple(described["elements"])
        return MaceSurrogate(name, sha256, devices, dtype, None, elements)
    file = _downloaded(name) if name in MACE_TORCH_NAMES else Path(name)
    if not file.is_file():
        raise SurrogateError(
            f"exploration.surrogate: no model file at {file}"
            f"{nearest(name, [BUNDLED_SURROGATE, OWN_SURROGATE, *NAMED_SURROGATES])}"
        )
    return MaceSurrogate(name, sha256_of_file(file), devices, dtype, file)


def kernels(device: str) -> str:
    """What computes the tensor products: ``cuequivariance`` on a GPU that has it, or ``e3nn``."""
    packages = ("cuequivariance_torch", "cuequivariance_ops_torch")
    installed = all(find_spec(package) is not None for package in packages)
    return "cuequivariance" if device.startswith("cuda") and installed else "e3nn"


def _cache_folder() -> Path:
    """What a user's machine found out about itself, as the XDG base directories have it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlip-autopipe"


#: A module that was unpickled for its elements alone waits here for its first user.
_unclaimed: dict[str, torch.nn.Module] = {}


@lru_cache(maxsize=64)
def _elements_in_file(file: Path, sha256: str) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    module = _unpickled(file, sha256)
    _unclaimed[sha256] = module
    numbers: Any = module.atomic_numbers
    return tuple(chemical_symbols[int(number)] for number in numbers)


def _unpickled(file: Path, sha256: str) -> torch.nn.Module:
    import torch

    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SurrogateError(
            f"exploration.surrogate: {file} was changed since it was looked up; start the run again"
        )
    try:
        module: torch.nn.Module = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=False
        )
    except Exception as error:
        raise SurrogateError(
            f"exploration.surrogate: {file} cannot be loaded as a MACE model "
            f"({type(error).__name__}: {error}); give a .model file of mace-torch"
        ) from error
    if not hasattr(module, "atomic_numbers"):
        raise SurrogateError(
            f"exploration.surrogate: {file} holds a {type(module).__name__}, not a MACE model; give "
            "the .model file, not a checkpoint or a state dict"
        )
    return module


def _downloaded(name: str) -> Path:
    with redirect_stdout(io.StringIO()):
        from mace.calculators.foundations_models import download_mace_mp_checkpoint

    try:
        return Path(download_mace_mp_checkpoint(MACE_TORCH_NAMES[name]))
    except (OSError, RuntimeError) as error:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' is not in mace-torch's cache and could not be "
            f"downloaded ({error}); connect to the internet once, or give the path of a model file, "
            f"or use '{BUNDLED_SURROGATE}'"
        ) from error
