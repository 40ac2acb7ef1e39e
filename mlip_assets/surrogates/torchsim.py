"""torch-sim: many structures in one call of a model (Cohen et al., arXiv:2508.06628).

Only the evaluation of the model is batched. Thermostat, guards and checkpoints stay with each
walker, so that every ensemble works with both backends and a walker can change its backend.

The result of a frame must not depend on the other frames of its batch: otherwise a resumed walker
would not give the frames of an uninterrupted run. On a CPU it would depend on them, in the last bit,
because the rows that do not fill a vector register are rounded differently. Each batch is therefore
padded to full registers, with non-interacting atoms and pairs beyond the cut-off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from mlip_assets.common.files import write_text
from mlip_assets.surrogates.batch import Evaluation
from mlip_assets.surrogates.box import add_periodic_box
from mlip_assets.surrogates.surrogate import SurrogateError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

#: Rows of a batch are padded to multiples of these: PyTorch's loops use four registers of 16 floats.
_ATOMS_STEP, _PAIRS_STEP = 16, 64
#: Messages of PyTorch's allocator, the driver and cuBLAS; only the first has its own exception.
_OUT_OF_MEMORY = ("out of memory", "alloc_failed")


class TorchSimCalculator(Calculator):
    """A model of torch-sim as an ASE calculator that can also evaluate many frames in one call.

    If a batch exceeds the memory of the GPU, it is halved. The new limit is stored for this process,
    and in the file ``limits`` for later ones.

    Parameters
    ----------
    model
        The torch-sim model, on its device.
    r_cut
        Cut-off radius of the model, Å.
    batch_atoms
        Largest number of atoms per call; None: all.
    limits
        JSON file of batch sizes.
    limits_key
        Key in this file: the model and the device.
    """

    def __init__(
        self, model: Any, *, r_cut: float, batch_atoms: int | None, limits: Path, limits_key: str
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self._model, self._r_cut = model, r_cut
        self._limits, self._limits_key = limits, limits_key
        self._neighbour_list, model.neighbor_list_fn = model.neighbor_list_fn, self._neighbours
        self._composition: tuple[list[int], NDArray[np.int64]] | None = None
        self.batch_atoms = self._stored_limits().get(limits_key, batch_atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate one frame: energy eV, forces eV/Å, and stress eV/Å³ if periodic."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert isinstance(self.atoms, Atoms)
        (found,) = self.calculate_batch([self.atoms])
        self.results = found.to_results()

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate frames in as few calls as the memory permits.

        Raises
        ------
        SurrogateError
            A single frame exceeds the memory.
        """
        found: list[Evaluation] = []
        while len(found) < len(frames):
            batch = self._next_batch(frames[len(found) :])
            try:
                found += self._evaluate(batch)
            except RuntimeError as error:
                if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                    raise
                if len(batch) == 1:
                    raise SurrogateError(
                        f"exploration.device: {len(batch[0])} atoms exceed the memory of "
                        f"{self._model.device} ({error}); use smaller seeds, or 'device: cpu'"
                    ) from error
                self._reduce_batch(sum(map(len, batch)))
        return found

    def _next_batch(self, frames: Sequence[Atoms]) -> Sequence[Atoms]:
        """As many of the first frames as the limit permits, and at least one."""
        if self.batch_atoms is None:
            return frames
        n_atoms = np.cumsum([len(atoms) for atoms in frames])
        return frames[: max(1, int(np.searchsorted(n_atoms, self.batch_atoms, side="right")))]

    def _evaluate(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        import torch
        import torch_sim

        # The state of torch-sim 0.3 is periodic in all directions or in none, for all systems.
        boxed = [
            atoms if atoms.pbc.all() else add_periodic_box(atoms, margin_A=self._r_cut + 1)
            for atoms in frames
        ]
        boxed.append(self._padding(boxed))
        self._systems_left, self._n_pairs = len(boxed), 0
        sizes = [len(atoms) for atoms in boxed]
        numbers = np.concatenate([atoms.numbers for atoms in boxed])
        state = torch_sim.SimState(
            positions=self._tensor(np.concatenate([atoms.positions for atoms in boxed])),
            masses=self._tensor(np.ones(len(numbers))),
            cell=self._tensor(np.stack([atoms.cell.array.T for atoms in boxed])),
            pbc=True,
            atomic_numbers=torch.as_tensor(numbers, device=self._model.device),
            system_idx=torch.as_tensor(
                np.repeat(np.arange(len(sizes)), sizes), device=self._model.device
            ),
        )
        if self._composition is None or not (
            self._composition[0] == sizes and np.array_equal(self._composition[1], numbers)
        ):
            # The model detects changed atoms, but not a changed assignment of atoms to systems.
            self._model.setup_from_system_idx(state.atomic_numbers, state.system_idx)
            self._composition = (sizes, numbers)
        results = {name: value.cpu().double().numpy() for name, value in self._model(state).items()}
        forces = np.split(results["forces"], np.cumsum(sizes)[:-1])
        return [
            Evaluation(
                energy_eV=float(results["energy"][number]),
                forces=forces[number],
                stress=_voigt(results["stress"][number]) if atoms.pbc.all() else None,
            )
            for number, atoms in enumerate(frames)
        ]

    def _padding(self, frames: Sequence[Atoms]) -> Atoms:
        """A system of isolated atoms that completes the last register."""
        n_atoms = _ATOMS_STEP - sum(map(len, frames)) % _ATOMS_STEP
        spacing = 2 * self._r_cut
        atoms = Atoms(frames[0].numbers[:1].repeat(n_atoms), pbc=True)
        atoms.positions[:, 0] = spacing * np.arange(n_atoms)
        atoms.set_cell([spacing * n_atoms, spacing, spacing])
        return atoms

    def _neighbours(
        self, positions: torch.Tensor, cell: torch.Tensor, pbc: bool, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Neighbour list of one system; for the last, the padding, pairs that fill the registers."""
        pairs, shifts = self._neighbour_list(positions, cell, pbc, cutoff)
        self._systems_left -= 1
        self._n_pairs += pairs.shape[1]
        if self._systems_left == 0:
            missing = -self._n_pairs % _PAIRS_STEP
            pairs = pairs.new_zeros((2, missing))  # from its first atom, to the image a cell away
            shifts = shifts.new_ones((missing, 1)) * shifts.new_tensor([1, 0, 0])
        return pairs, shifts

    def _tensor(self, values: NDArray[np.float64]) -> torch.Tensor:
        import torch

        return torch.as_tensor(values, dtype=self._model.dtype, device=self._model.device)

    def _reduce_batch(self, n_atoms: int) -> None:
        import torch

        torch.cuda.empty_cache()
        self.batch_atoms = n_atoms // 2
        _log.warning(
            "%d atoms per batch exceed the memory of %s; continuing with %d",
            n_atoms,
            self._model.device,
            self.batch_atoms,
        )
        write_text(
            self._limits, json.dumps(self._stored_limits() | {self._limits_key: self.batch_atoms})
        )

    def _stored_limits(self) -> dict[str, int]:
        if not self._limits.exists():
            return {}
        limits: dict[str, int] = json.loads(self._limits.read_text(encoding="utf-8"))
        return limits


def _voigt(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    return stress.ravel()[[0, 4, 8, 5, 2, 1]]
