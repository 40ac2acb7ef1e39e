"""MACE: the bundled weights, the checkpoints of mace-torch by name, and any model file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlip_assets.campaign import (
    BUNDLED_SURROGATE,
    NAMED_SURROGATES,
    OWN_SURROGATE,
    MdBackend,
    MdBackendChoice,
    nearest,
)
from mlip_assets.common.files import sha256_of_file, write_atomically
from mlip_assets.surrogates.committee import make_committee
from mlip_assets.surrogates.mace_calculator import (
    import_mace,
    load_mace_model,
    mace_calculator,
)
from mlip_assets.surrogates.models.bundled import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    load_bundled,
    read_description,
)
from mlip_assets.surrogates.surrogate import (
    UNKNOWN_LICENCE,
    Surrogate,
    SurrogateError,
    require_package,
)
from mlip_assets.surrogates.torchsim import TorchSimCalculator

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator

#: Our names -> the names of mace-torch's downloader. Its models with several heads are excluded: a
#: name does not define a level of theory.
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

#: Batches on the CPU are faster from this number of walkers, up to this number of atoms per cell.
MIN_BATCHED_WALKERS, MAX_BATCHED_ATOMS_ON_CPU = 4, 32
#: Atoms per batch on the CPU: a larger batch exceeds the cache and is not faster.
CPU_BATCH_ATOMS = 256

_MIT = "MIT"
_MIT_MODELS = ("mace-mp-0", "mace-mpa-0")
_ASL = "Academic Software License (no commercial use)"


@dataclass(frozen=True)
class MaceSurrogate(Surrogate):
    """A MACE potential."""

    distribution = "mace-torch"

    file: Path | None
    """The ``.model`` file; None for the bundled weights."""
    known_elements: tuple[str, ...] | None = None
    """If they are known without reading the weights."""

    def module(self) -> torch.nn.Module:
        """A new torch module on the CPU, in the precision in which it was saved.

        A ``.model`` file is a pickle, and loading one runs code. Its hash is checked before: it is
        still the one that was found, and the one in the campaign if that has one.
        """
        import torch

        if self.file is None:
            return load_bundled(getattr(torch, self.dtype))
        return _unused_modules.pop(self.sha256, None) or _unpickled(self.file, self.sha256)

    def build(self, device: str) -> Calculator:
        """``MACECalculator``, with cuEquivariance kernels on a GPU if they are installed."""
        return mace_calculator(
            self.module(),
            device,
            default_dtype=self.dtype,
            enable_cueq=kernels(device) == "cuequivariance",
        )

    def build_batched(self, device: str) -> Calculator:
        """The same weights in torch-sim's ``MaceModel``."""
        import torch

        import_mace()
        from torch_sim.models.mace import MaceModel

        model = MaceModel(
            self.module(),
            device=torch.device(device),
            dtype=getattr(torch, self.dtype),
            enable_cueq=kernels(device) == "cuequivariance",
        )
        device_name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
        return TorchSimCalculator(
            model,
            r_cut=float(model.r_max),
            batch_atoms=CPU_BATCH_ATOMS if device == "cpu" else None,
            limits=_cache_folder() / "batch_limits.json",
            limits_key=f"{self.sha256} {self.dtype} on {device_name}",
        )

    def md_backend(self, requested: MdBackendChoice, n_atoms: Sequence[int]) -> MdBackend:
        """``torchsim``, if it is installed, on GPUs, and on the CPU for many small cells."""
        if requested == "torchsim":
            require_package("torch_sim", "torchsim", "md_backend: torchsim")
        if requested != "auto":
            return requested
        is_faster = self.device.startswith("cuda") or (
            len(n_atoms) >= MIN_BATCHED_WALKERS and max(n_atoms) <= MAX_BATCHED_ATOMS_ON_CPU
        )
        return "torchsim" if is_faster and find_spec("torch_sim") is not None else "ase"

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols of the weights; a file is unpickled if they are not known otherwise."""
        if self.known_elements is not None:
            return self.known_elements
        assert self.file is not None
        return _elements_in_file(self.file, self.sha256)

    def save_model(self, path: Path) -> Path:
        """Write the ``.model`` file from which mace-torch's trainer fine-tunes."""
        import torch

        with write_atomically(path) as temporary, temporary.open("wb") as stream:
            torch.save(self.module(), stream)
        return path

    def licence(self) -> str:
        """As in the package that provides the weights."""
        if self.name == OWN_SURROGATE:
            return "trained by this campaign"
        if self.name == BUNDLED_SURROGATE or self.name.startswith(_MIT_MODELS):
            return _MIT
        return _ASL if self.name in MACE_TORCH_NAMES else UNKNOWN_LICENCE

    def metadata(self) -> dict[str, Any]:
        """As of every surrogate, and the kernels of the tensor products."""
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
    """The model that the campaign has promoted: one model, or a committee that begins with it."""
    main, *others = (
        MaceSurrogate(OWN_SURROGATE, sha256_of_file(file), devices, dtype, file, trained.elements)
        for file in (trained.model_file, *trained.members)
    )
    return replace(make_committee([main, *others]), name=OWN_SURROGATE) if others else main


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
    """The library of the tensor products: ``cuequivariance`` on a GPU if installed, else ``e3nn``."""
    packages = ("cuequivariance_torch", "cuequivariance_ops_torch")
    installed = all(find_spec(package) is not None for package in packages)
    return "cuequivariance" if device.startswith("cuda") and installed else "e3nn"


def _cache_folder() -> Path:
    """Folder of machine-specific data, according to the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlip-autopipe"


#: Modules unpickled for their elements, kept for the first call of :meth:`MaceSurrogate.module`.
_unused_modules: dict[str, torch.nn.Module] = {}


@lru_cache(maxsize=64)
def _elements_in_file(file: Path, sha256: str) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    module = _unpickled(file, sha256)
    _unused_modules[sha256] = module
    numbers: Any = module.atomic_numbers
    return tuple(chemical_symbols[int(number)] for number in numbers)


def _unpickled(file: Path, sha256: str) -> torch.nn.Module:
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SurrogateError(
            f"exploration.surrogate: {file} has changed since the run started; start the run again"
        )
    try:
        module = load_mace_model(io.BytesIO(content))
    except Exception as error:
        raise SurrogateError(
            f"exploration.surrogate: {file} cannot be loaded as a MACE model "
            f"({type(error).__name__}: {error}); give a .model file of mace-torch"
        ) from error
    if not hasattr(module, "atomic_numbers"):
        raise SurrogateError(
            f"exploration.surrogate: {file} contains a {type(module).__name__}, not a MACE model; give "
            "the .model file, not a checkpoint or a state dict"
        )
    return module


def _downloaded(name: str) -> Path:
    import_mace()
    from mace.calculators.foundations_models import download_mace_mp_checkpoint

    try:
        return Path(download_mace_mp_checkpoint(MACE_TORCH_NAMES[name]))
    except (OSError, RuntimeError) as error:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' is not in mace-torch's cache and could not be "
            f"downloaded ({error}); connect to the internet once, or give the path of a model file, "
            f"or use '{BUNDLED_SURROGATE}'"
        ) from error
