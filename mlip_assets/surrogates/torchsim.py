"""torch-sim: many structures in one call of a model (Cohen et al., arXiv:2508.06628).

Walkers stay what they are, with a thermostat, guards and checkpoints each; only what they ask of
the model goes through it together. So a walker can change from one engine to the other, and every
ensemble, guard and retry works with both.

What a frame gets must not depend on the frames beside it, or a walker that resumes would leave its
unbroken course. On a processor it would: what is left over when rows are dealt out to vector
registers is rounded otherwise. So every batch is filled up to whole registers, with atoms out of
reach of each other and pairs beyond the cut-off, and then each frame has the same bits in all.
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
from mlip_assets.surrogates import Evaluation
from mlip_assets.surrogates.box import boxed_in
from mlip_assets.surrogates.surrogate import SurrogateError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

#: Rows of a batch come in multiples of these: PyTorch's loops take four registers of 16 floats.
_ATOMS_STEP, _PAIRS_STEP = 16, 64
#: What PyTorch's allocator, the driver and cuBLAS say; only the first has an exception of its own.
_OUT_OF_MEMORY = ("out of memory", "alloc_failed")


class TorchSimCalculator(Calculator):
    """A model of torch-sim as an ASE calculator that also takes many frames at once.

    When a batch does not fit into the memory of the GPU, half of it is tried, and the size that was
    too large is remembered, in this process and in ``limits`` for those to come.

    Parameters
    ----------
    model
        torch-sim's, on its device.
    r_cut
        Cut-off radius of the model, Å.
    batch_atoms
        Atoms worth taking at once; None: as many as fit.
    limits
        File in which batch sizes are remembered.
    limited
        Name of what they hold for: this model on this device.
    """

    def __init__(
        self, model: Any, *, r_cut: float, batch_atoms: int | None, limits: Path, limited: str
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self._model, self._r_cut = model, r_cut
        self._limits, self._limited = limits, limited
        self._neighbour_list, model.neighbor_list_fn = model.neighbor_list_fn, self._neighbours
        self._composition: tuple[list[int], NDArray[np.int64]] | None = None
        self.batch_atoms = self._remembered().get(limited, batch_atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """One frame: energy eV, forces eV/Å, and stress eV/Å³ where it is periodic."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert isinstance(self.atoms, Atoms)
        (found,) = self.calculate_batch([self.atoms])
        self.results = {
            "energy": found.energy_eV,
            "free_energy": found.energy_eV,
            "forces": found.forces,
        }
        if found.stress is not None:
            self.results["stress"] = found.stress

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate frames in as few calls as the memory allows.

        Raises
        ------
        SurrogateError
            One frame alone does not fit.
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
                        f"exploration.device: {len(batch[0])} atoms do not fit into the memory of "
                        f"{self._model.device} ({error}); use smaller seeds, or 'device: cpu'"
                    ) from error
                self._back_off(sum(map(len, batch)))
        return found

    def _next_batch(self, frames: Sequence[Atoms]) -> Sequence[Atoms]:
        """As many of the first frames as fit, and always one."""
        if self.batch_atoms is None:
            return frames
        n_atoms = np.cumsum([len(atoms) for atoms in frames])
        return frames[: max(1, int(np.searchsorted(n_atoms, self.batch_atoms, side="right")))]

    def _evaluate(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        import torch
        import torch_sim

        # The state of torch-sim 0.3 is periodic in all directions or in none, for all systems.
        boxed = [
            atoms if atoms.pbc.all() else boxed_in(atoms, margin_A=self._r_cut + 1)
            for atoms in frames
        ]
        boxed.append(self._filler(boxed))
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
            # It looks for changes in the atoms, but not in how they are shared out among systems.
            self._model.setup_from_system_idx(state.atomic_numbers, state.system_idx)
            self._composition = (sizes, numbers)
        answer = {name: value.cpu().double().numpy() for name, value in self._model(state).items()}
        forces = np.split(answer["forces"], np.cumsum(sizes)[:-1])
        return [
            Evaluation(
                energy_eV=float(answer["energy"][number]),
                forces=forces[number],
                stress=_voigt(answer["stress"][number]) if atoms.pbc.all() else None,
            )
            for number, atoms in enumerate(frames)
        ]

    def _filler(self, frames: Sequence[Atoms]) -> Atoms:
        """A system of lone atoms that completes the last register."""
        n_atoms = _ATOMS_STEP - sum(map(len, frames)) % _ATOMS_STEP
        spacing = 2 * self._r_cut
        atoms = Atoms(frames[0].numbers[:1].repeat(n_atoms), pbc=True)
        atoms.positions[:, 0] = spacing * np.arange(n_atoms)
        atoms.set_cell([spacing * n_atoms, spacing, spacing])
        return atoms

    def _neighbours(
        self, positions: torch.Tensor, cell: torch.Tensor, pbc: bool, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The neighbour list of one system; of the last, the filler, pairs to complete registers."""
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

    def _back_off(self, n_atoms: int) -> None:
        import torch

        torch.cuda.empty_cache()
        self.batch_atoms = n_atoms // 2
        _log.warning(
            "%d atoms at once do not fit into the memory of %s; going on with %d",
            n_atoms,
            self._model.device,
            self.batch_atoms,
        )
        write_text(self._limits, json.dumps(self._remembered() | {self._limited: self.batch_atoms}))

    def _remembered(self) -> dict[str, int]:
        if not self._limits.exists():
            return {}
        limits: dict[str, int] = json.loads(self._limits.read_text(encoding="utf-8"))
        return limits


def _voigt(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    return stress.ravel()[[0, 4, 8, 5, 2, 1]]
