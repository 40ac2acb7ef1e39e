"""The exploration of a campaign in one call, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from mlip_assets.campaign import Campaign, MdBackend
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.exploration import run_walkers
from mlip_assets.dynamics.walker import Walker, plan_walkers
from mlip_assets.structures import build_seeds
from mlip_assets.surrogates import Surrogate, campaign_surrogate
from mlip_assets.trajectory import Trajectory


@dataclass(frozen=True)
class Exploration:
    """The walkers of one campaign, and what moves them."""

    walkers: tuple[Walker, ...]
    surrogate: Surrogate
    md_backend: MdBackend

    @classmethod
    def plan(cls, campaign: Campaign, seeds: Sequence[Atoms], surrogate: Surrogate) -> Exploration:
        """One walker per seed × temperature or ramp × pressure × replica.

        Parameters
        ----------
        seeds
            Each with a unique ``info["seed_name"]`` and a ``info["seed_kind"]``.

        Raises
        ------
        SurrogateError
            The molecular-dynamics program of the campaign cannot run this surrogate.
        ValueError
            There are more walkers than frame identifiers.
        """
        walkers = tuple(plan_walkers(campaign, seeds, surrogate.sha256))
        wanted = campaign.exploration.md_backend
        backend = surrogate.engine(wanted, [len(walker.initial_structure) for walker in walkers])
        return cls(walkers, surrogate, backend)

    def run(
        self, folder: str | os.PathLike[str], n_workers: int, *, progress: Progress | None = None
    ) -> Trajectory:
        """As :func:`mlip_assets.dynamics.run_walkers`, in ``n_workers`` processes."""
        calculators = self.surrogate.calculators(n_workers, self.md_backend)
        return run_walkers(self.walkers, calculators, Path(folder), progress=progress)


def explore(
    campaign: Campaign,
    folder: str | os.PathLike[str],
    *,
    structures: Sequence[Atoms] | None = None,
    surrogate: Surrogate | None = None,
    n_workers: int | None = None,
) -> Trajectory:
    """Molecular dynamics of a campaign's seeds with its surrogate.

    One walker per seed × temperature or ramp × pressure × replica, with the settings ``exploration``
    and ``guards`` of the campaign. Frames are written while the walkers move, and progress is logged.
    An interrupted run resumes from its checkpoints and gives the same frames; a finished one is only
    read.

    Parameters
    ----------
    campaign
        From :func:`mlip_assets.load_campaign`.
    folder
        Local folder of the frames and checkpoints; created if it does not exist.
    structures
        Initial structures; None: the seeds of the campaign. ``info["seed_name"]`` is the name of
        each (by default ``structure-0``, ``structure-1``, …), ``info["seed_kind"]`` its kind (by
        default ``structure``).
    surrogate
        Gives the forces; None: the one that the campaign names. ``own-model`` has no default.
    n_workers
        Processes, one core or GPU each; None: one process per GPU, or one on the CPU. A script with
        several needs ``if __name__ == "__main__":``.

    Returns
    -------
    Trajectory
        A lazy handle on the frames; its ``to_dataframe`` reads all or a part.

    Raises
    ------
    SurrogateError
        The surrogate cannot be found, or lacks an element.
    ValueError
        Two structures have the same name, or a seed cannot be built.

    Examples
    --------
    >>> from mlip_assets import Campaign, explore
    >>> campaign = Campaign(
    ...     name="argon",
    ...     composition="Ar",
    ...     seeds={"kinds": ["crystal"], "crystal_atoms": 4},
    ...     exploration={
    ...         "surrogate": "lennard-jones",
    ...         "temperatures_K": [40],
    ...         "n_steps": 20,
    ...         "sample_every": 10,
    ...     },
    ...     sampling={"n_samples": 2},
    ...     training={"start_from": "scratch"},
    ... )
    >>> trajectory = explore(campaign, "frames")
    >>> trajectory.n_frames
    2
    >>> trajectory.to_dataframe(columns=["walker", "step", "target_temperature_K"])
               walker  step  target_temperature_K
    0  crystal_40K_r0    10                  40.0
    1  crystal_40K_r0    20                  40.0
    """
    surrogate = surrogate or campaign_surrogate(campaign)
    if structures is None:
        structures = build_seeds(campaign, calculator=surrogate.calculator())
    exploration = Exploration.plan(campaign, _named(structures), surrogate)
    return exploration.run(folder, n_workers or len(surrogate.devices))


def _named(structures: Sequence[Atoms]) -> list[Atoms]:
    """Copies with a name and a kind each."""
    named = []
    for number, structure in enumerate(structures):
        atoms = structure.copy()
        atoms.info = {
            "seed_name": f"structure-{number}",
            "seed_kind": "structure",
            **structure.info,
        }
        named.append(atoms)
    names = [atoms.info["seed_name"] for atoms in named]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"structures: seed_name {', '.join(repeated)} occurs more than once; give each "
            "structure its own info['seed_name']"
        )
    return named
