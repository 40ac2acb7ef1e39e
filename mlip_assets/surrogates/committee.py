"""A committee: several surrogates that vote on every force, and say how far they disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlip_assets.campaign import Engine, EngineChoice
from mlip_assets.surrogates import BatchCalculator, Evaluation, force_spread
from mlip_assets.surrogates.surrogate import Surrogate


@dataclass(frozen=True)
class Committee(Surrogate):
    """Two or more surrogates; the mean of their forces moves the atoms."""

    members: tuple[Surrogate, ...]

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that every member knows."""
        others = [set(member.elements()) for member in self.members[1:]]
        return tuple(s for s in self.members[0].elements() if all(s in other for other in others))

    def build(self, device: str) -> Calculator:
        """A :class:`CommitteeCalculator`."""
        return CommitteeCalculator([member.build(device) for member in self.members])

    def build_batched(self, device: str) -> Calculator:
        """A :class:`BatchedCommitteeCalculator`."""
        return BatchedCommitteeCalculator([m.build_batched(device) for m in self.members])

    def engine(self, wanted: EngineChoice, n_atoms: Sequence[int]) -> Engine:
        """torch-sim where every member can be batched and would be."""
        chosen = {member.engine(wanted, n_atoms) for member in self.members}
        return "torchsim" if chosen == {"torchsim"} else "ase"

    def save_model(self, path: Path) -> Path:
        """The first member is the one to fine-tune."""
        return self.members[0].save_model(path)


class CommitteeCalculator(Calculator):
    """Means over the members, and the spread of their forces.

    ``results["force_spread"]``, eV/Å, (n_atoms,), is that of
    :func:`mlip_assets.dynamics.force_spread`. Energies of members with different references are
    averaged all the same: their mean is the potential of the mean force.
    """

    def __init__(self, members: Sequence[Calculator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        means = ["energy", "free_energy", "forces", "stress"]
        self.implemented_properties = [*means, "force_spread"]
        self.members = tuple(members)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Run every member on the same atoms."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        for member in self.members:
            member.reset()  # else a stress of earlier atoms stays where these have none
            member.calculate(self.atoms, ["energy", "forces", "stress"], all_changes)
        found = _mean(
            [
                Evaluation(m.results["energy"], m.results["forces"], m.results.get("stress"))
                for m in self.members
            ]
        )
        self.results = {
            "energy": found.energy_eV,
            "free_energy": found.energy_eV,
            "forces": found.forces,
            "force_spread": found.force_spread,
        }
        if found.stress is not None:
            self.results["stress"] = found.stress


class BatchedCommitteeCalculator(CommitteeCalculator):
    """The same of members that each take many frames at once."""

    @property
    def batch_atoms(self) -> int | None:
        """What suits the member that takes the fewest; None where all take any number."""
        limits = [m.batch_atoms for m in self._batched if m.batch_atoms is not None]
        return min(limits, default=None)

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Every member evaluates all frames."""
        said = [member.calculate_batch(frames) for member in self._batched]
        return [_mean(of_frame) for of_frame in zip(*said, strict=True)]

    @property
    def _batched(self) -> list[BatchCalculator]:
        return [member for member in self.members if isinstance(member, BatchCalculator)]


def _mean(said: Sequence[Evaluation]) -> Evaluation:
    forces = np.array([evaluation.forces for evaluation in said], dtype=float)
    stresses = [evaluation.stress for evaluation in said if evaluation.stress is not None]
    return Evaluation(
        energy_eV=float(np.mean([evaluation.energy_eV for evaluation in said])),
        forces=forces.mean(axis=0),
        stress=np.mean(stresses, axis=0) if len(stresses) == len(said) else None,
        force_spread=force_spread(forces),
    )


def unite(members: Sequence[Surrogate]) -> Committee:
    """The committee of some surrogates, all on the devices of the first."""
    first = members[0]
    return Committee(
        name=" + ".join(member.name for member in members),
        sha256=hashlib.sha256("".join(m.sha256 for m in members).encode()).hexdigest(),
        devices=first.devices,
        dtype=first.dtype,
        members=tuple(members),
    )
