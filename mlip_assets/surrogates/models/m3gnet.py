"""M3GNet (Chen and Ong, Nat. Comput. Sci. 2, 718, 2022) through matgl, by name or from a folder.

matgl 3.0 sums the messages of an edge on its first atom; earlier versions summed them on its second.
Weights trained with those, such as ``M3GNet-MP-2021.2.8-PES``, are loaded without a warning, and then
give wrong energies if neighbouring elements differ (LiF is unbound, MgO is 3.8 eV/atom too high).
Such weights are recognised by their hash and get the sum with which they were trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip_assets.common.files import sha256_of_file
from mlip_assets.surrogates.box import BoxedCalculator
from mlip_assets.surrogates.surrogate import (
    Surrogate,
    SurrogateError,
    require_float32,
    require_package,
)

if TYPE_CHECKING:
    import torch
    from ase.calculators.calculator import Calculator

#: The weights of ``m3gnet`` without a folder, downloaded from the Hugging Face Hub.
_HUB_NAME = "materialyze/M3GNet-PES-MatPES-PBE-2025.2"
_FILES = ("model.json", "model.pt", "state.pt")

#: SHA-256 of ``state.pt`` of weights trained with messages summed on the second atom.
_TRAINED_BEFORE_MATGL_3 = {
    "a9aa723705bd1a242ec8749332f137811c4a94e17995a564f8f94a9aca68061b": "M3GNet-MP-2021.2.8-PES",
    "9f710eac88ec2c666c8e488883c59768cf11c116f177e9d82896ae56f3fc338d": "M3GNet-MatPES-PBE-v2025.1-PES",
}


@dataclass(frozen=True)
class M3gnetSurrogate(Surrogate):
    """An M3GNet potential in matgl's format."""

    distribution = "matgl"

    folder: Path
    """With ``model.json``, ``model.pt`` and ``state.pt``; read without unpickling code."""

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols listed in ``model.json``."""
        described = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        return tuple(described["kwargs"]["model"]["init_args"]["element_types"])

    def build(self, device: str) -> Calculator:
        """Matgl's calculator for structures periodic in any number of directions."""
        import matgl
        from matgl.ext.ase import PESCalculator

        potential = matgl.load_model(self.folder).to(device)
        if sha256_of_file(self.folder / "state.pt") in _TRAINED_BEFORE_MATGL_3:
            _sum_messages_on_second_atom(potential.model)
        inside = PESCalculator(potential, stress_unit="eV/A3", use_voigt=True)
        return BoxedCalculator(inside, r_cut=float(inside.cutoff))


def find(name: str, *, devices: tuple[str, ...], dtype: str) -> M3gnetSurrogate:
    """``m3gnet:<folder>``, or ``m3gnet`` for the weights that matgl recommends.

    Raises
    ------
    SurrogateError
        matgl is missing, the folder does not hold a model, the download failed, or float64 is
        requested.
    """
    require_package("matgl", "m3gnet", name)
    require_float32(dtype, name)
    _, _, place = name.partition(":")
    folder = Path(place) if place else _downloaded(name)
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        raise SurrogateError(
            f"exploration.surrogate: '{name}': {folder} has no {', '.join(missing)}; give the folder "
            f"of a model saved by matgl, which contains {', '.join(_FILES)}"
        )
    digests = "".join(sha256_of_file(folder / file) for file in _FILES)
    sha256 = hashlib.sha256(digests.encode()).hexdigest()
    return M3gnetSurrogate(name, sha256, devices, dtype, folder)


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(_HUB_NAME, allow_patterns=list(_FILES)))
    except Exception as error:
        raise SurrogateError(
            f"exploration.surrogate: '{name}' ({_HUB_NAME}) could not be downloaded "
            f"({type(error).__name__}: {error}); connect to the internet once, or write "
            "'m3gnet:<folder>' with the folder of a model saved by matgl"
        ) from error


def _sum_messages_on_second_atom(model: torch.nn.Module) -> None:
    from matgl.layers._graph_convolution import M3GNetGraphConv
    from torch import Tensor, hstack

    class SecondAtomGraphConv(M3GNetGraphConv):  # type: ignore[misc]
        def node_update_(
            self,
            edge_index: Tensor,
            edge_feat: Tensor,
            node_feat: Tensor,
            rbf: Tensor,
            u_per_edge: Tensor | None,
            num_nodes: int,
        ) -> Any:
            start, end = edge_index.long()
            parts = [node_feat[start], node_feat[end], edge_feat]
            joined = hstack(parts if u_per_edge is None else [*parts, u_per_edge])
            message = self.node_update_func(joined) * self.node_weight_func(rbf)
            return message.new_zeros(num_nodes, message.shape[1]).index_add(0, end, message)

    for layer in model.modules():
        if isinstance(layer, M3GNetGraphConv):
            layer.__class__ = SecondAtomGraphConv
