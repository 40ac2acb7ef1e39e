"""The exploration of one campaign: all its walkers, over the cores of the machine, resumable."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from mlip_assets.dynamics.trajectory import Part, Trajectory, WalkerReport, trajectory_at
from mlip_assets.dynamics.walker import Walker, finished_walker, run_walker, steps_done
from mlip_assets.processes import die_with_parent
from mlip_assets.progress import Progress

_Outcome = tuple[WalkerReport, tuple[Part, ...]]


def run_walkers(
    walkers: Sequence[Walker],
    make_calculator: Callable[[], Calculator],
    root: Path,
    *,
    n_workers: int = 1,
) -> Trajectory:
    """Run every walker to its end and return a handle on all their frames.

    Parameters
    ----------
    walkers
        From :func:`mlip_assets.dynamics.plan_walkers`.
    make_calculator
        Builds the surrogate's calculator, once in every worker process; must be picklable. It is
        not called when nothing is left to run.
    root
        Local folder for part-files and checkpoints. What is already there is not computed again.
    n_workers
        Processes. One runs the walkers in this process, which is what a GPU wants.

    Notes
    -----
    A walker's frames do not depend on ``n_workers`` nor on the other walkers.
    """
    total = sum(walker.settings.n_steps for walker in walkers)
    done = sum(steps_done(walker, root) for walker in walkers)
    progress = Progress("exploration", total, "steps", already_done=done)
    ended = [finished_walker(walker, root) for walker in walkers]
    left = [walker for walker, outcome in zip(walkers, ended, strict=True) if outcome is None]
    outcomes = [outcome for outcome in ended if outcome is not None]
    if min(n_workers, len(left)) > 1:
        n_workers = min(n_workers, len(left))
        outcomes += _run_in_processes(left, make_calculator, root, n_workers, progress)
    elif left:
        calculator = make_calculator()
        outcomes += [run_walker(w, calculator, root, on_steps=progress.advance) for w in left]
    parts = [part for _, parts in outcomes for part in parts]
    return trajectory_at(root, parts, [report for report, _ in outcomes])


def _run_in_processes(
    walkers: Sequence[Walker],
    make_calculator: Callable[[], Calculator],
    root: Path,
    n_workers: int,
    progress: Progress,
) -> list[_Outcome]:
    context = get_context("spawn")  # fork is unsafe once torch has started threads
    steps = context.Queue()
    with ProcessPoolExecutor(
        n_workers,
        context,
        initializer=_start_worker,
        initargs=(make_calculator, steps, os.getpid()),
    ) as pool:
        # The longest walkers first, so that no core idles at the end.
        order = sorted(walkers, key=lambda walker: -len(walker.seed))
        futures = {pool.submit(_run_in_worker, walker, root): walker for walker in order}
        pending: set[Future[_Outcome]] = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(steps, progress)
            for future in finished:
                if future.exception() is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    future.result()
        return [future.result() for future in futures]


def _drain(steps: Any, progress: Progress) -> None:
    try:
        while True:
            progress.advance(steps.get_nowait())
    except queue.Empty:
        return


_calculator: Calculator | None = None
_steps: Any = None


def _start_worker(make_calculator: Callable[[], Calculator], steps: Any, parent: int) -> None:
    global _calculator, _steps
    die_with_parent(parent)
    _calculator, _steps = make_calculator(), steps


def _run_in_worker(walker: Walker, root: Path) -> _Outcome:
    assert _calculator is not None
    return run_walker(walker, _calculator, root, on_steps=_steps.put)
