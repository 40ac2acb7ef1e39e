"""The walker: molecular dynamics of one initial structure under one set of conditions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ase import Atoms

from mlip_assets.campaign import Campaign, ExplorationSettings, GuardSettings, fingerprint
from mlip_assets.dynamics.conditions import Conditions, conditions_of
from mlip_assets.dynamics.integrator import INTEGRATOR
from mlip_assets.trajectory import WALKERS_PER_ROUND


@dataclass(frozen=True)
class Walker:
    """The definition of one walker.

    ``fingerprint`` covers everything that decides its frames except the number of steps. A walker
    with more steps therefore continues from its checkpoint; any other change starts a new one.
    """

    number: int
    name: str
    initial_structure: Atoms
    conditions: Conditions
    replica: int
    random_seed: tuple[int, ...]
    settings: ExplorationSettings
    guards: GuardSettings
    surrogate_sha256: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of initial structure, surrogate weights and settings."""
        settings = self.settings.stored(
            include={
                "dtype",
                "timestep_fs",
                "friction_per_ps",
                "barostat_period_fs",
                "sample_every",
            }
        )
        structure = {
            "numbers": self.initial_structure.numbers.tolist(),
            "positions": self.initial_structure.positions.tolist(),
            "cell": self.initial_structure.cell.tolist(),
            "pbc": self.initial_structure.pbc.tolist(),
        }
        identity = {
            "number": self.number,
            "integrator": INTEGRATOR,
            "conditions": self.conditions.identity(),
            "random_seed": list(self.random_seed),
            "surrogate_sha256": self.surrogate_sha256,
        }
        return fingerprint(settings, self.guards, structure, identity)

    @property
    def folder(self) -> str:
        """Folder of its files, relative to the trajectory's root."""
        return f"{self.name}.{self.fingerprint[:12]}"


def plan_walkers(campaign: Campaign, seeds: Sequence[Atoms], surrogate_sha256: str) -> list[Walker]:
    """One walker per seed × temperature or ramp × pressure × replica of a campaign.

    A seed that is not periodic in all directions has no pressure: it runs at constant volume, once
    per temperature. The random numbers of a walker depend on the campaign's random seed and the
    walker's name only. Replicas are the outermost loop, so that more replicas do not change the
    numbers, and therefore the frame identifiers, of the others. Numbers of different rounds of a
    campaign differ.

    Parameters
    ----------
    campaign
        Its sections ``exploration`` and ``guards``, its random seed and its round are used.
    seeds
        Initial structures, each with a unique ``info["seed_name"]`` and a ``info["seed_kind"]``.
    surrogate_sha256
        Hash of the weights, part of each fingerprint.

    Raises
    ------
    ValueError
        There are more walkers than frame identifiers.
    """
    exploration = campaign.exploration
    cases: dict[str, tuple[int, Conditions, Atoms]] = {}
    for replica in range(exploration.replicas):
        for conditions in conditions_of(exploration):
            for seed in seeds:
                possible = conditions if seed.pbc.all() else conditions.at_constant_volume()
                name = f"{seed.info['seed_name']}_{possible.label}_r{replica}"
                cases.setdefault(name, (replica, possible, seed))
    if len(cases) > WALKERS_PER_ROUND:
        raise ValueError(
            f"exploration: {len(cases)} walkers, at most {WALKERS_PER_ROUND} have frame identifiers; "
            "lower exploration.replicas, or explore in several campaigns"
        )
    return [
        Walker(
            number=campaign.round * WALKERS_PER_ROUND + number,
            name=name,
            initial_structure=seed,
            conditions=conditions,
            replica=replica,
            random_seed=(campaign.random_seed, zlib.crc32(name.encode())),
            settings=exploration,
            guards=campaign.guards,
            surrogate_sha256=surrogate_sha256,
        )
        for number, (name, (replica, conditions, seed)) in enumerate(cases.items())
    ]
