"""Run the walkers of a campaign on cores or GPUs; an interrupted exploration resumes."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ase.calculators.calculator import Calculator

from mlip_assets.common.processes import die_with_parent
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.checkpoint import Checkpoint
from mlip_assets.dynamics.walker import Walker
from mlip_assets.dynamics.walker_run import WalkerRun
from mlip_assets.surrogates.batch import BatchCalculator, evaluate
from mlip_assets.trajectory import (
    Part,
    Trajectory,
    WalkerReport,
    cut_parts,
)

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.sharedctypes import Synchronized

Outcome: TypeAlias = tuple[WalkerReport, tuple[Part, ...]]
CalculatorFactory: TypeAlias = Callable[[], Calculator]


def run_walkers(
    walkers: Sequence[Walker],
    make_calculator: CalculatorFactory | Sequence[CalculatorFactory],
    root: Path,
    *,
    progress: Progress | None = None,
) -> Trajectory:
    """Run every walker to its last step and return a handle on all frames.

    Parameters
    ----------
    walkers
        From :func:`mlip_assets.dynamics.plan_walkers`.
    make_calculator
        Builds the surrogate's calculator. A sequence of picklable functions runs the walkers in
        one process per function; a single function runs them in this process, as for one GPU. It
        is not called when every walker is complete. A
        :class:`~mlip_assets.surrogates.batch.BatchCalculator` evaluates many walkers in one batch.
    root
        Local folder for part-files and checkpoints. Frames that it contains are not computed again.
    progress
        Counts steps; None: progress is only logged.

    Notes
    -----
    A walker's frames do not depend on the number of processes nor on the other walkers.
    """
    factories = [make_calculator] if callable(make_calculator) else list(make_calculator)
    progress = progress or Progress("exploration", n_steps(walkers), "steps")
    progress.skip(sum(steps_done(walker, root) for walker in walkers))
    finished = [finished_walker(walker, root) for walker in walkers]
    remaining = [w for w, outcome in zip(walkers, finished, strict=True) if outcome is None]
    outcomes = [outcome for outcome in finished if outcome is not None]
    factories = factories[: len(remaining)]
    if len(factories) > 1:
        outcomes += _run_in_processes(remaining, factories, root, progress)
    elif remaining:
        calculator = factories[0]()
        outcomes += _run_batched(remaining, calculator, root, progress.advance, len(remaining))
    parts = [part for _, parts in outcomes for part in parts]
    return Trajectory.from_parts(root, parts, [report for report, _ in outcomes])


def run_walker(
    walker: Walker,
    calculator: Calculator,
    root: Path,
    *,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Run one walker to exactly ``settings.n_steps``, or until a guard stops it.

    Frames are written to part-files below ``root`` during the run. If the process is killed, the
    next call resumes from the last checkpoint and gives the same frames as an uninterrupted run.

    Parameters
    ----------
    walker
        What to run.
    calculator
        ASE calculator of the surrogate.
    root
        Folder of the trajectory, on a local file system.
    on_steps
        Called with the number of steps completed since the previous call.

    Returns
    -------
    report, parts
        Its final state, and its part-files.

    Raises
    ------
    RuntimeError
        Another process is running the same walker.
    OSError
        Frames or checkpoint cannot be written, such as on a full disk. Frames recorded before are
        safe, and the next call resumes after them.
    """
    (outcome,) = _run_batched([walker], calculator, root, on_steps, max_running=1)
    return outcome


def n_steps(walkers: Iterable[Walker]) -> int:
    """Total number of steps."""
    return sum(walker.settings.n_steps for walker in walkers)


def steps_done(walker: Walker, root: Path) -> int:
    """Number of steps that need no more computing: all, if a guard stopped the walker."""
    checkpoint = Checkpoint.load(root / walker.folder)
    if checkpoint is None:
        return 0
    requested = walker.settings.n_steps
    return requested if checkpoint.stopped_by else min(checkpoint.step, requested)


def finished_walker(walker: Walker, root: Path) -> Outcome | None:
    """The result of :func:`run_walker` for a complete walker; None if steps remain."""
    checkpoint = Checkpoint.load(root / walker.folder)
    if checkpoint is None or not checkpoint.is_done(walker.settings.n_steps):
        return None
    return _outcome(walker, checkpoint)


def _run_batched(
    walkers: Iterable[Walker],
    calculator: Calculator,
    root: Path,
    on_steps: Callable[[int], None],
    max_running: int,
) -> list[Outcome]:
    """Advance as many walkers together as the calculator takes; the next starts when one ends."""
    waiting, running, ended = iter(walkers), list[WalkerRun](), list[WalkerRun]()
    try:
        while True:
            while len(running) < max_running and _has_capacity(calculator, running):
                if (walker := next(waiting, None)) is None:
                    break
                running.append(WalkerRun(walker, root, on_steps))
            if not running:
                return [_outcome(run.walker, run.final_checkpoint) for run in ended]
            frames = [run.pending_frame for run in running if run.pending_frame is not None]
            started = time.perf_counter()
            evaluations = iter(evaluate(calculator, frames))
            s_per_atom = (time.perf_counter() - started) / max(sum(map(len, frames)), 1)
            for run in running:
                if run.pending_frame is not None:
                    run.advance(next(evaluations), len(run.pending_frame) * s_per_atom)
            ended += [run for run in running if run.pending_frame is None]
            running = [run for run in running if run.pending_frame is not None]
    finally:
        for run in running:
            run.close()


def _has_capacity(calculator: Calculator, running: Sequence[WalkerRun]) -> bool:
    if not isinstance(calculator, BatchCalculator):
        return not running
    n_atoms = sum(len(run.walker.initial_structure) for run in running)
    return calculator.batch_atoms is None or n_atoms < calculator.batch_atoms


@dataclass(frozen=True)
class _Shared:
    """What the worker processes share."""

    walkers: Sequence[Walker]
    root: Path
    n_workers: int
    next_walker: Synchronized[int]
    """Index of the first walker that no worker has started."""
    step_queue: Queue[int]
    """Numbers of completed steps, for the progress of the parent process."""

    def claim(self) -> Iterator[Walker]:
        """Claim one walker after the other, until none is left."""
        while True:
            with self.next_walker.get_lock():
                number = self.next_walker.value
                self.next_walker.value = number + 1
            if number >= len(self.walkers):
                return
            yield self.walkers[number]

    def stop(self) -> None:
        """Start no further walker."""
        self.next_walker.value = len(self.walkers)


def _run_in_processes(
    walkers: Sequence[Walker],
    factories: Sequence[CalculatorFactory],
    root: Path,
    progress: Progress,
) -> list[Outcome]:
    context = get_context("spawn")  # fork is unsafe once torch has started threads
    # The largest structures first, so that all cores are busy until the end.
    order = sorted(walkers, key=lambda walker: -len(walker.initial_structure))
    shared = _Shared(order, root, len(factories), context.Value("q", 0), context.Queue())
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(
        len(factories), context, initializer=_start_worker, initargs=(shared, os.getpid())
    ) as pool:
        pending = {pool.submit(_work, factory) for factory in factories}
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _count_steps(shared.step_queue, progress)
            for future in finished:
                if future.exception() is not None:
                    shared.stop()
                outcomes += future.result()
    return outcomes


def _count_steps(step_queue: Queue[int], progress: Progress) -> None:
    try:
        while True:
            progress.advance(step_queue.get_nowait())
    except queue.Empty:
        return


_shared: _Shared | None = None


def _start_worker(shared: _Shared, parent: int) -> None:
    global _shared  # noqa: PLW0603  shared objects can only be inherited by a process
    die_with_parent(parent)
    _shared = shared


def _work(make_calculator: CalculatorFactory) -> list[Outcome]:
    assert _shared is not None
    equal_share = -(-len(_shared.walkers) // _shared.n_workers)
    return _run_batched(
        _shared.claim(),
        make_calculator(),
        _shared.root,
        _shared.step_queue.put,
        max_running=equal_share,
    )


def _outcome(walker: Walker, checkpoint: Checkpoint) -> Outcome:
    """Report and parts; a walker that once ran longer is cut to the steps requested now."""
    settings = walker.settings
    n_steps = min(checkpoint.step, settings.n_steps)
    parts = cut_parts(checkpoint.parts, n_steps // settings.sample_every, settings.sample_every)
    report = WalkerReport(
        number=walker.number,
        name=walker.name,
        seed_name=walker.initial_structure.info["seed_name"],
        seed_kind=walker.initial_structure.info["seed_kind"],
        target_temperature_K=walker.conditions.temperature_K(n_steps),
        replica=walker.replica,
        n_steps=n_steps,
        n_frames=sum(part.n_frames for part in parts),
        stopped_by=checkpoint.stopped_by if checkpoint.step <= settings.n_steps else None,
        conditions=f"{walker.conditions.ensemble} {walker.conditions.label}",
        n_atoms=len(walker.initial_structure),
        events=tuple(event for event in checkpoint.events if event.step <= settings.n_steps),
        wall_s=checkpoint.wall_s,
    )
    return report, parts
