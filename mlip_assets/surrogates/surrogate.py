"""The interface of every surrogate: weights with a name and a hash, on one or more devices."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlip_assets.campaign import MdBackend, MdBackendChoice
from mlip_assets.compute.devices import describe_devices
from mlip_assets.surrogates.mace_calculator import disable_jit_fusion

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

#: Licence of weights whose origin is not in this package.
UNKNOWN_LICENCE = "see the file's provider"


class SurrogateError(ValueError):
    """The surrogate of a campaign cannot be used; the message gives the reason and a remedy."""


@dataclass(frozen=True)
class Surrogate(ABC):
    """Weights, their name and hash, and their devices. Picklable, for worker processes."""

    name: str
    """As written in the campaign."""
    sha256: str
    """Of the weights."""
    devices: tuple[str, ...]
    """``("cpu",)`` or one ``cuda:n`` per GPU; ``auto`` is already resolved."""
    dtype: str
    """``float32`` or ``float64``."""

    distribution: ClassVar[str]
    """Name of the Python package that computes, as in ``pip show``."""

    @property
    def device(self) -> str:
        """The first of its devices."""
        return self.devices[0]

    @abstractmethod
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that the weights support."""

    @abstractmethod
    def build(self, device: str) -> Calculator:
        """An ASE calculator on a device: energy eV, forces eV/Å, stress eV/Å³."""

    def build_batched(self, device: str) -> Calculator:
        """A calculator for many structures per call, if :meth:`md_backend` is ``torchsim``."""
        raise NotImplementedError(f"{self.name} on {device}")

    def md_backend(self, requested: MdBackendChoice, n_atoms: Sequence[int]) -> MdBackend:  # noqa: ARG002  the sizes are used by models that can batch
        """Choose how walkers are evaluated.

        Parameters
        ----------
        requested
            ``exploration.md_backend`` of the campaign.
        n_atoms
            Number of atoms of each walker.

        Raises
        ------
        SurrogateError
            The requested one does not support this surrogate.
        """
        if requested == "torchsim":
            raise SurrogateError(
                f"exploration.md_backend: '{self.name}' is not a MACE model, and torch-sim supports no "
                "other; write 'md_backend: auto' or 'md_backend: ase'"
            )
        return "ase"

    def calculators(self, n_workers: int, md_backend: MdBackend) -> list[Callable[[], Calculator]]:
        """For each worker a picklable function that builds its calculator."""
        return [partial(self.calculator, worker, md_backend) for worker in range(n_workers)]

    def calculator(self, worker: int = 0, md_backend: MdBackend = "ase") -> Calculator:
        """The calculator of one worker; workers are assigned to the devices in turn."""
        import torch

        device = self.devices[worker % len(self.devices)]
        if device == "cpu":
            torch.set_num_threads(1)  # more threads are slower for small cells
            disable_jit_fusion()
        return self.build(device) if md_backend == "ase" else self.build_batched(device)

    def save_model(self, path: Path) -> Path:
        """Write the ``.model`` file from which mace-torch's trainer fine-tunes.

        Raises
        ------
        SurrogateError
            The surrogate is not a MACE model.
        """
        raise SurrogateError(
            f"training.start_from: surrogate '{self.name}' is not a MACE model and cannot be fine-tuned "
            f"as {path.name}; write 'start_from: scratch'"
        )

    def require_elements(self, required: Sequence[str]) -> None:
        """Raise SurrogateError if the weights lack an element."""
        supported = self.elements()
        missing = [symbol for symbol in required if symbol not in supported]
        if missing:
            raise SurrogateError(
                f"exploration.surrogate: '{self.name}' does not support {', '.join(missing)} (it "
                f"supports {' '.join(supported)}); choose another, such as mace-mp-0, or give a "
                "model file"
            )

    def package_version(self) -> str:
        """Name and version of the package that computes, such as ``mace-torch 0.3.16``."""
        return f"{self.distribution} {importlib.metadata.version(self.distribution)}"

    def licence(self) -> str:
        """Licence of the weights."""
        return UNKNOWN_LICENCE

    def metadata(self) -> dict[str, Any]:
        """What identifies the computation: weights, hash, package, licence, device, GPU."""
        return {
            "surrogate": self.name,
            "surrogate_sha256": self.sha256,
            "package_version": self.package_version(),
            "licence": self.licence(),
            "device": ", ".join(self.devices),
            "dtype": self.dtype,
            **describe_devices(self.devices),
        }


def require_package(package: str, extra: str, name: str) -> None:
    """Raise SurrogateError, with the command to run, if an optional package is missing."""
    if importlib.util.find_spec(package) is None:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' needs the package {package}, which is not installed; "
            f"run: python -m pip install 'mlip-autopipe[{extra}]'"
        )


def require_float32(dtype: str, name: str) -> None:
    """Raise SurrogateError for a surrogate whose program rounds its input to float32."""
    if dtype != "float32":
        raise SurrogateError(
            f"exploration.dtype: '{name}' computes in float32 only; write 'dtype: float32', or "
            "choose a MACE model"
        )
