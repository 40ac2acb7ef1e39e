"""Committees: mean and standard deviation of the forces of several surrogates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlip_assets.campaign import MdBackend, MdBackendChoice
from mlip_assets.surrogates.batch import BatchCalculator, Evaluation, force_spread
from mlip_assets.surrogates.surrogate import Surrogate


@dataclass(frozen=True)
class Committee(Surrogate):
    """Two or more surrogates; the mean of their forces moves the atoms."""

    members: tuple[Surrogate, ...]

    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that every member supports."""
        others = [set(member.elements()) for member in self.members[1:]]
        return tuple(s for s in self.members[0].elements() if all(s in other for other in others))

    def build(self, device: str) -> Calculator:
        """A :class:`CommitteeCalculator`."""
        return CommitteeCalculator([member.build(device) for member in self.members])

    def build_batched(self, device: str) -> Calculator:
        """A :class:`BatchedCommitteeCalculator`."""
        return BatchedCommitteeCalculator([m.build_batched(device) for m in self.members])

    def md_backend(self, requested: MdBackendChoice, n_atoms: Sequence[int]) -> MdBackend:
        """``torchsim`` if it is the choice of every member."""
        chosen = {member.md_backend(requested, n_atoms) for member in self.members}
        return "torchsim" if chosen == {"torchsim"} else "ase"

    def save_model(self, path: Path) -> Path:
        """Write the first member, from which fine-tuning starts."""
        return self.members[0].save_model(path)

    def package_version(self) -> str:
        """Those of the members, each once."""
        return "; ".join(dict.fromkeys(member.package_version() for member in self.members))

    def licence(self) -> str:
        """Those of the members, each once."""
        return "; ".join(dict.fromkeys(member.licence() for member in self.members))


class CommitteeCalculator(Calculator):
    """Means over the members, and the spread of their forces.

    ``results["force_spread"]``, ``(n_atoms,)`` in eV/Å, is
    :func:`mlip_assets.surrogates.force_spread`. The energies of members with different reference
    energies are averaged as well: their mean is the potential of the mean force.
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
        """Evaluate the atoms with every member."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        for member in self.members:
            member.reset()  # otherwise the stress of earlier atoms remains if these have none
            member.calculate(self.atoms, ["energy", "forces", "stress"], all_changes)
        found = _mean(
            [
                Evaluation(m.results["energy"], m.results["forces"], m.results.get("stress"))
                for m in self.members
            ]
        )
        self.results = found.to_results()


class BatchedCommitteeCalculator(CommitteeCalculator):
    """A committee whose members evaluate many frames in one call."""

    @property
    def batch_atoms(self) -> int | None:
        """The smallest of the members' values; None if none has a limit."""
        limits = [m.batch_atoms for m in self._batched if m.batch_atoms is not None]
        return min(limits, default=None)

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate all frames with every member."""
        by_member = [member.calculate_batch(frames) for member in self._batched]
        return [_mean(of_frame) for of_frame in zip(*by_member, strict=True)]

    @property
    def _batched(self) -> list[BatchCalculator]:
        return [member for member in self.members if isinstance(member, BatchCalculator)]


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Mean and spread over the members, for one frame."""
    forces = np.array([evaluation.forces for evaluation in evaluations], dtype=float)
    stresses = [e.stress for e in evaluations if e.stress is not None]
    return Evaluation(
        energy_eV=float(np.mean([evaluation.energy_eV for evaluation in evaluations])),
        forces=forces.mean(axis=0),
        stress=np.mean(stresses, axis=0) if len(stresses) == len(evaluations) else None,
        force_spread=force_spread(forces),
    )


def make_committee(members: Sequence[Surrogate]) -> Committee:
    """The committee of these surrogates, all on the devices of the first."""
    first = members[0]
    return Committee(
        name=" + ".join(member.name for member in members),
        sha256=hashlib.sha256("".join(m.sha256 for m in members).encode()).hexdigest(),
        devices=first.devices,
        dtype=first.dtype,
        members=tuple(members),
    )
