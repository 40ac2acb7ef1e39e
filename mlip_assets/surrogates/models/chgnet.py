"""CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031, 2023); its weights are part of the package."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from mlip_assets.common.files import sha256_of_file
from mlip_assets.surrogates.box import BoxedCalculator
from mlip_assets.surrogates.surrogate import (
    Surrogate,
    SurrogateError,
    require_float32,
    require_package,
)

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

_WEIGHTS = "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
#: Absent from its training set, the Materials Project trajectories.
_UNSEEN = ("Po", "At", "Rn", "Fr", "Ra")
_HEAVIEST = 94


@dataclass(frozen=True)
class ChgnetSurrogate(Surrogate):
    """CHGNet, trained on PBE and PBE+U relaxations of 89 elements; without magnetic moments."""

    distribution = "chgnet"

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols of the training set."""
        return tuple(s for s in chemical_symbols[1 : _HEAVIEST + 1] if s not in _UNSEEN)

    def build(self, device: str) -> Calculator:
        """``CHGNetCalculator``; its weights are unpickled from the installed package."""
        with redirect_stdout(io.StringIO()):  # the package prints size and device
            from chgnet.model.dynamics import CHGNetCalculator
            from chgnet.model.model import CHGNet

            model = CHGNet.load(use_device=device, verbose=False)
            # no warning in each step for an atom beyond the cut-off radius of all others
            inside = CHGNetCalculator(model, use_device=device, on_isolated_atoms="ignore")
        return BoxedCalculator(inside, r_cut=float(model.graph_converter.atom_graph_cutoff))

    def licence(self) -> str:
        """That of the package, which contains the weights."""
        return "modified BSD (Lawrence Berkeley National Laboratory)"


def find(name: str, *, devices: tuple[str, ...], dtype: str) -> ChgnetSurrogate:
    """CHGNet as installed; its package is not imported yet.

    Raises
    ------
    SurrogateError
        The package is missing or holds other weights, or float64 is requested.
    """
    require_package("chgnet", "chgnet", name)
    require_float32(dtype, name)
    spec = find_spec("chgnet")
    assert spec is not None
    assert spec.origin is not None
    weights = Path(spec.origin).parent / _WEIGHTS
    if not weights.is_file():
        raise SurrogateError(
            f"exploration.surrogate: '{name}': the installed package has no {_WEIGHTS}; run: python "
            "-m pip install 'mlip-autopipe[chgnet]'"
        )
    return ChgnetSurrogate(name, sha256_of_file(weights), devices, dtype)
