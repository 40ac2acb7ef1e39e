"""A surrogate: one set of MACE weights on one device. Plain and picklable, for worker processes."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip_assets.campaign import (
    BUNDLED_SURROGATE,
    NAMED_SURROGATES,
    Campaign,
    CampaignError,
    load,
)
from mlip_assets.files import sha256_of_file, write_atomically
from resources.bundled_model import BUNDLED_FOLDER, BUNDLED_NAME, load_bundled, read_description

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator

_log = logging.getLogger(__name__)

#: Our names -> the names mace-torch's downloader knows.
MACE_TORCH_NAMES = {
    "mace-mp-0": "medium",
    "mace-mp-0-small": "small",
    "mace-mp-0-large": "large",
    "mace-mp-0b3": "medium-0b3",
    "mace-mpa-0": "medium-mpa-0",
    "mace-omat-0": "medium-omat-0",
}


class SurrogateError(ValueError):
    """The surrogate a campaign names cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Surrogate:
    """MACE weights, where they came from, and where they run."""

    name: str
    """``bundled``, a name of mace-torch's, or the path of a model file."""
    file: Path | None
    """The ``.model`` file; None for the bundled weights."""
    sha256: str
    """Of the file, or of the bundled state dict."""
    device: str
    """``cpu`` or ``cuda:n``: never ``auto``, that has been decided."""
    dtype: str
    """``float32`` or ``float64``."""

    def module(self) -> torch.nn.Module:
        """The torch module, on the CPU.

        A ``.model`` file is a pickle and loading one runs code: its hash is checked first where
        the campaign states one.
        """
        import torch

        if self.file is None:
            return load_bundled(getattr(torch, self.dtype))
        module: torch.nn.Module = torch.load(self.file, map_location="cpu", weights_only=False)
        return module

    def calculator(self) -> Calculator:
        """An ASE calculator: energy eV, forces eV/Å, stress eV/Å³."""
        import torch

        with redirect_stdout(io.StringIO()):  # it announces the accelerators it did not find
            from mace.calculators import MACECalculator

        if self.device == "cpu":
            torch.set_num_threads(1)  # more threads slow small cells down; walkers run in parallel
            # Fused kernels replace the others after a warm-up and round differently: without this,
            # a walker that resumes in a new process would leave its unbroken course.
            torch.jit.set_fusion_strategy([])
        return MACECalculator(models=[self.module()], device=self.device, default_dtype=self.dtype)

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols the weights know."""
        from ase.data import chemical_symbols

        if self.file is None:
            return bundled_elements()
        numbers: Any = self.module().atomic_numbers
        return tuple(chemical_symbols[int(number)] for number in numbers)

    def require_elements(self, wanted: Sequence[str]) -> None:
        """Raise SurrogateError when the weights lack an element."""
        require_elements(wanted, self.elements(), self.name)

    def save_model(self, path: Path) -> Path:
        """Write the module as the ``.model`` file that mace-torch's trainer fine-tunes from."""
        import torch

        with write_atomically(path) as temporary, temporary.open("wb") as stream:
            torch.save(self.module(), stream)
        return path

    def metadata(self) -> dict[str, Any]:
        """What a reader of the lineage wants to know: model, hash, device, GPU."""
        described: dict[str, Any] = {
            "surrogate": self.name,
            "surrogate_sha256": self.sha256,
            "device": self.device,
            "dtype": self.dtype,
        }
        if self.device.startswith("cuda"):
            import torch

            properties = torch.cuda.get_device_properties(self.device)
            described["gpu_name"] = properties.name
            described["gpu_memory_GiB"] = round(properties.total_memory / 2**30, 1)
        return described


def load_campaign(path: Path) -> Campaign:
    """Load a campaign file, and check what the bundled weights say without being loaded.

    Raises
    ------
    CampaignError
        As :func:`mlip_assets.campaign.load`, or the bundled surrogate lacks an element.
    """
    campaign = load(path)
    if campaign.exploration.surrogate == BUNDLED_SURROGATE:
        try:
            require_elements(campaign.elements, bundled_elements(), BUNDLED_SURROGATE)
        except SurrogateError as error:
            raise CampaignError(f"{path}: {error}") from error
    return campaign


def bundled_elements() -> tuple[str, ...]:
    """Chemical symbols the bundled weights know, without loading them."""
    return tuple(read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"])


def require_elements(wanted: Sequence[str], known: Sequence[str], name: str) -> None:
    """Raise SurrogateError when a surrogate lacks an element."""
    missing = [symbol for symbol in wanted if symbol not in known]
    if missing:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' does not know {', '.join(missing)} (it knows "
            f"{' '.join(known)}); choose another, such as mace-mp-0, or give a model file"
        )


def find_surrogate(name: str, *, device: str, dtype: str, sha256: str | None = None) -> Surrogate:
    """Resolve a name or path to weights on a device. Nothing falls back to another model.

    Parameters
    ----------
    name
        ``bundled``, one of ``NAMED_SURROGATES`` (fetched by mace-torch into its cache), or a path.
    device
        ``auto`` (CUDA when there is any, else the CPU), ``cpu``, ``cuda`` or ``cuda:n``.
    dtype
        ``float32`` or ``float64``.
    sha256
        Expected hash of the weights.

    Raises
    ------
    SurrogateError
        No such model, no such device, a failed download, or another hash than expected.
    """
    device = find_device(device, "exploration.device")
    if name == BUNDLED_SURROGATE:
        file, found = None, read_description(BUNDLED_FOLDER, BUNDLED_NAME)["state_dict_sha256"]
    else:
        file = _downloaded(name) if name in NAMED_SURROGATES else Path(name)
        if not file.is_file():
            raise SurrogateError(f"exploration.surrogate: no model file at {file}")
        found = sha256_of_file(file)
    if sha256 is not None and found != sha256:
        raise SurrogateError(
            f"exploration.surrogate_sha256: '{name}' hashes to {found}, the campaign expects "
            f"{sha256}; use the file it was written for, or update the hash"
        )
    surrogate = Surrogate(name, file, found, device, dtype)
    _log.info("surrogate %s (sha256 %s…) on %s, %s", name, found[:12], device, dtype)
    return surrogate


def find_device(device: str, setting: str) -> str:
    """Decide what ``auto`` means here, and that a device asked for by name exists.

    Raises
    ------
    SurrogateError
        Naming ``setting``: there is no such CUDA device.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        if device == "auto":
            return "cpu"
        raise SurrogateError(
            f"{setting}: '{device}' asked for, but torch sees no CUDA device; use auto or "
            "cpu, or install a CUDA build of torch"
        )
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise SurrogateError(
            f"{setting}: '{device}' asked for, but there are only "
            f"{torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return f"cuda:{index}"


def _downloaded(name: str) -> Path:
    from mace.calculators.foundations_models import download_mace_mp_checkpoint

    try:
        return Path(download_mace_mp_checkpoint(MACE_TORCH_NAMES[name]))
    except (OSError, RuntimeError) as error:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' is not in mace-torch's cache and could not be "
            f"downloaded ({error}); connect to the internet once, or give the path of a model file, "
            f"or use '{BUNDLED_SURROGATE}'"
        ) from error
