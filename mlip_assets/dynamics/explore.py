"""The exploration of a campaign in one call, without Dagster."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip_assets.campaign import Campaign, MdBackend
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.exploration import run_walkers, steps_done
from mlip_assets.dynamics.walker import Walker, plan_walkers
from mlip_assets.structures import build_seeds
from mlip_assets.surrogates import Surrogate, campaign_surrogate
from mlip_assets.surrogates.batch import evaluate
from mlip_assets.trajectory import Trajectory

#: Seconds until a worker process on the CPU runs its first step. Importing mace-torch and loading the
#: bundled model took 13 s of CPU time in each of two workers, and 24 s where other programs ran too.
WORKER_START_S = 20.0


@dataclass(frozen=True)
class Exploration:
    """The walkers of one campaign, their surrogate and the program of molecular dynamics."""

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
        requested = campaign.exploration.md_backend
        n_atoms = [len(walker.initial_structure) for walker in walkers]
        return cls(walkers, surrogate, surrogate.md_backend(requested, n_atoms))

    def run(
        self, folder: str | os.PathLike[str], n_workers: int, *, progress: Progress | None = None
    ) -> Trajectory:
        """As :func:`mlip_assets.dynamics.run_walkers`, in at most ``n_workers`` processes.

        On the CPU, worker processes are started only if the remaining steps take longer than the
        start of a worker. Otherwise the walkers run in this process, with the same frames.
        """
        root = Path(folder)
        factories = self.surrogate.calculators(n_workers, self.md_backend)
        steps_left = [(w, w.settings.n_steps - steps_done(w, root)) for w in self.walkers]
        remaining = [(walker, steps) for walker, steps in steps_left if steps > 0]
        if self.surrogate.device == "cpu" and min(n_workers, len(remaining)) > 1:
            calculator = factories[0]()
            if _estimate_s(calculator, remaining) < WORKER_START_S:
                factories = [lambda: calculator]
        return run_walkers(self.walkers, factories, root, progress=progress)


def _estimate_s(calculator: Calculator, remaining: Sequence[tuple[Walker, int]]) -> float:
    """Time of the remaining steps in one process, from one evaluation of a walker of median size."""
    structures = sorted((walker.initial_structure for walker, _ in remaining), key=len)
    atoms = structures[len(structures) // 2].copy()
    evaluate(calculator, [atoms])  # the first evaluation also compiles and allocates
    started = time.perf_counter()
    evaluate(calculator, [atoms])
    s_per_atom = (time.perf_counter() - started) / len(atoms)
    atom_steps = sum(len(walker.initial_structure) * steps for walker, steps in remaining)
    return s_per_atom * atom_steps


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
        Largest number of processes, one core or GPU each; None: one process per GPU, or one on the
        CPU. Short explorations on the CPU start none. A script with several needs
        ``if __name__ == "__main__":``.

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
