"""The walker: one seed under one set of conditions, guarded, resumable bit by bit."""

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
    """What one walker is to do.

    ``fingerprint`` covers everything that decides its frames except how long it runs, so that
    asking for more steps continues it and changing anything else starts afresh.
    """

    number: int
    name: str
    seed: Atoms
    conditions: Conditions
    replica: int
    random_seed: tuple[int, ...]
    settings: ExplorationSettings
    guards: GuardSettings
    surrogate_sha256: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 over seed structure, surrogate weights and settings."""
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
            "numbers": self.seed.numbers.tolist(),
            "positions": self.seed.positions.tolist(),
            "cell": self.seed.cell.tolist(),
            "pbc": self.seed.pbc.tolist(),
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
    """Every seed × temperature or ramp × pressure × replica of a campaign.

    Replicas are the outermost loop, so that asking for more of them leaves the numbers, and with
    them the frame identifiers, of the others as they were. Each walker draws its random numbers
    from a stream of its own, derived from the campaign's seed and the walker's name. A seed that is
    not periodic in all directions has no pressure: it runs at constant volume, once a temperature.
    Numbers, and with them frame identifiers, differ from those of the campaign's other rounds.
    """
    exploration = campaign.exploration
    cases: dict[str, tuple[int, Conditions, Atoms]] = {}
    for replica in range(exploration.replicas):
        for conditions in conditions_of(exploration):
            for seed in seeds:
                own = conditions if seed.pbc.all() else conditions.at_constant_volume()
                name = f"{seed.info['seed_name']}_{own.label}_r{replica}"
                cases.setdefault(name, (replica, own, seed))
    if len(cases) > WALKERS_PER_ROUND:
        raise ValueError(
            f"exploration: {len(cases)} walkers, at most {WALKERS_PER_ROUND} have frame identifiers; "
            "lower exploration.replicas, or explore in several campaigns"
        )
    walkers = []
    for number, (name, (replica, conditions, seed)) in enumerate(cases.items()):
        walkers.append(
            Walker(
                number=campaign.round * WALKERS_PER_ROUND + number,
                name=name,
                seed=seed,
                conditions=conditions,
                replica=replica,
                random_seed=(campaign.random_seed, zlib.crc32(name.encode())),
                settings=exploration,
                guards=campaign.guards,
                surrogate_sha256=surrogate_sha256,
            )
        )
    return walkers
