"""What every surrogate is: weights with a name and a hash, on one or more devices."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip_assets.campaign import Engine, EngineChoice
from mlip_assets.compute.devices import describe_devices
from mlip_assets.surrogates.mace_calculator import keep_kernels

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class SurrogateError(ValueError):
    """The surrogate a campaign names cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Surrogate(ABC):
    """Weights, where they came from, and where they run. Plain and picklable, for workers."""

    name: str
    """As written in the campaign."""
    sha256: str
    """Of the weights."""
    devices: tuple[str, ...]
    """``("cpu",)`` or one ``cuda:n`` for each GPU: never ``auto``, that has been decided."""
    dtype: str
    """``float32`` or ``float64``."""

    @property
    def device(self) -> str:
        """The first of its devices."""
        return self.devices[0]

    @abstractmethod
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols the weights know."""

    @abstractmethod
    def build(self, device: str) -> Calculator:
        """An ASE calculator on a device: energy eV, forces eV/Å, stress eV/Å³."""

    def build_batched(self, device: str) -> Calculator:
        """One that takes many structures at once, where :meth:`engine` says ``torchsim``."""
        raise NotImplementedError(f"{self.name} on {device}")

    def engine(self, wanted: EngineChoice, n_atoms: Sequence[int]) -> Engine:  # noqa: ARG002  the sizes matter to those that can batch
        """Decide which engine moves walkers of so many atoms.

        Raises
        ------
        SurrogateError
            The one that is wanted cannot run this surrogate.
        """
        if wanted == "torchsim":
            raise SurrogateError(
                f"exploration.md_backend: torch-sim runs MACE models, and '{self.name}' is none; write "
                "'md_backend: auto' or 'md_backend: ase'"
            )
        return "ase"

    def calculators(self, n_workers: int, engine: Engine) -> list[Callable[[], Calculator]]:
        """What builds the calculator of each of several workers; picklable."""
        return [partial(self.calculator, worker, engine) for worker in range(n_workers)]

    def calculator(self, worker: int = 0, engine: Engine = "ase") -> Calculator:
        """The calculator of one worker of several; workers share out the GPUs in turn."""
        import torch

        device = self.devices[worker % len(self.devices)]
        if device == "cpu":
            torch.set_num_threads(1)  # more threads slow small cells down; walkers run in parallel
            keep_kernels()
        return self.build(device) if engine == "ase" else self.build_batched(device)

    def save_model(self, path: Path) -> Path:
        """Write the ``.model`` file that mace-torch's trainer fine-tunes from.

        Raises
        ------
        SurrogateError
            The surrogate is not a MACE model.
        """
        raise SurrogateError(
            f"training.start_from: surrogate '{self.name}' is no MACE model, which {path.name} "
            "would be fine-tuned from; write 'start_from: scratch'"
        )

    def require_elements(self, wanted: Sequence[str]) -> None:
        """Raise SurrogateError when the weights lack an element."""
        known = self.elements()
        missing = [symbol for symbol in wanted if symbol not in known]
        if missing:
            raise SurrogateError(
                f"exploration.surrogate: '{self.name}' does not know {', '.join(missing)} (it knows "
                f"{' '.join(known)}); choose another, such as mace-mp-0, or give a model file"
            )

    def metadata(self) -> dict[str, Any]:
        """What a reader of the lineage wants to know: model, hash, device, GPU."""
        return {
            "surrogate": self.name,
            "surrogate_sha256": self.sha256,
            "device": ", ".join(self.devices),
            "dtype": self.dtype,
            **describe_devices(self.devices),
        }


def require_package(package: str, extra: str, name: str) -> None:
    """Raise SurrogateError, with the command to run, when an optional package is missing."""
    if importlib.util.find_spec(package) is None:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' needs the package {package}, which is not installed; "
            f"run: python -m pip install -c constraints.txt -e '.[{extra}]'"
        )


def require_float32(dtype: str, name: str) -> None:
    """Raise SurrogateError for a surrogate whose program rounds its input to float32."""
    if dtype != "float32":
        raise SurrogateError(
            f"exploration.dtype: '{name}' computes in float32 only; write 'dtype: float32', or "
            "choose a MACE model"
        )
