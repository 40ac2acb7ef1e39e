"""A committee: several surrogates that vote on every force, and say how far they disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from resources.surrogates.base import Surrogate


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

    def save_model(self, path: Path) -> Path:
        """The first member is the one to fine-tune."""
        return self.members[0].save_model(path)


class CommitteeCalculator(Calculator):
    """Means over the members, and the spread of their forces.

    ``results["force_spread"]`` is, for each atom, the root mean square distance of the members'
    forces from their mean, in eV/Å, shape (n_atoms,). Energies of members with different
    references are averaged all the same: their mean is the potential of the mean force.
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
        forces = np.array([member.results["forces"] for member in self.members], dtype=float)
        energy = float(np.mean([member.results["energy"] for member in self.members]))
        distances = np.linalg.norm(forces - forces.mean(axis=0), axis=2)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces.mean(axis=0),
            "force_spread": np.sqrt((distances**2).mean(axis=0)),
        }
        stresses = [m.results["stress"] for m in self.members if "stress" in m.results]
        if len(stresses) == len(self.members):
            self.results["stress"] = np.mean(stresses, axis=0)


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
