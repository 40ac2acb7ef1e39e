"""The exploration of one campaign: all its walkers, over cores or GPUs, resumable."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

from ase.calculators.calculator import Calculator

from mlip_assets.common.processes import die_with_parent
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.checkpoint import Checkpoint
from mlip_assets.dynamics.walker import Walker
from mlip_assets.dynamics.walker_run import Course
from mlip_assets.surrogates.batch import BatchCalculator, evaluate
from mlip_assets.trajectory import (
    Part,
    Trajectory,
    WalkerReport,
    cut_parts,
)

Outcome: TypeAlias = tuple[WalkerReport, tuple[Part, ...]]
CalculatorFactory: TypeAlias = Callable[[], Calculator]


def run_walkers(
    walkers: Sequence[Walker],
    make_calculator: CalculatorFactory | Sequence[CalculatorFactory],
    root: Path,
    *,
    progress: Progress | None = None,
) -> Trajectory:
    """Run every walker to its end and return a handle on all their frames.

    Parameters
    ----------
    walkers
        From :func:`mlip_assets.dynamics.plan_walkers`.
    make_calculator
        Builds the surrogate's calculator. Several, which must be picklable, run the walkers in as
        many processes; one runs them in this process, which is what a GPU wants. None is called
        when nothing is left to run. A calculator that is a
        :class:`~mlip_assets.surrogates.batch.BatchCalculator` moves many walkers in step.
    root
        Local folder for part-files and checkpoints. What is already there is not computed again.
    progress
        Counts steps; by default one that is only logged.

    Notes
    -----
    A walker's frames do not depend on the number of processes nor on the other walkers.
    """
    factories = [make_calculator] if callable(make_calculator) else list(make_calculator)
    progress = progress or Progress("exploration", n_steps(walkers), "steps")
    progress.skip(sum(steps_done(walker, root) for walker in walkers))
    ended = [finished_walker(walker, root) for walker in walkers]
    left = [walker for walker, outcome in zip(walkers, ended, strict=True) if outcome is None]
    outcomes = [outcome for outcome in ended if outcome is not None]
    factories = factories[: len(left)]
    if len(factories) > 1:
        outcomes += _run_in_processes(left, factories, root, progress)
    elif left:
        outcomes += _run_together(left, factories[0](), root, progress.advance, len(left))
    parts = [part for _, parts in outcomes for part in parts]
    return Trajectory.from_parts(root, parts, [report for report, _ in outcomes])


def run_walker(
    walker: Walker,
    calculator: Calculator,
    root: Path,
    *,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Run one walker to exactly ``settings.n_steps``, or until a guard stops it for good.

    Frames go to part-files below ``root`` as the walker moves. When the process is killed, the
    next call goes on from the last checkpoint and ends with the same frames as an unbroken run.

    Parameters
    ----------
    walker
        What to run.
    calculator
        ASE calculator of the surrogate.
    root
        Folder of the trajectory, on a local file system.
    on_steps
        Called with the number of steps just made.

    Returns
    -------
    report, parts
        How it ended, and its part-files.

    Raises
    ------
    RuntimeError
        Another process is running the same walker.
    OSError
        Frames or checkpoint cannot be written, such as on a full disk. What was recorded before is
        safe, and the next call goes on from there.
    """
    (outcome,) = _run_together([walker], calculator, root, on_steps, at_most=1)
    return outcome


def n_steps(walkers: Iterable[Walker]) -> int:
    """Steps of all of them."""
    return sum(walker.settings.n_steps for walker in walkers)


def steps_done(walker: Walker, root: Path) -> int:
    """Return how many of a walker's steps need no more computing (all, when a guard stopped it)."""
    state = Checkpoint.find(root / walker.folder)
    if state is None:
        return 0
    wanted = walker.settings.n_steps
    return wanted if state.stopped_by else min(state.step, wanted)


def finished_walker(walker: Walker, root: Path) -> Outcome | None:
    """What :func:`run_walker` returns, for a walker that needs no more computing; else None."""
    state = Checkpoint.find(root / walker.folder)
    return _report(walker, state) if state and state.is_done(walker.settings.n_steps) else None


def _run_together(
    walkers: Iterable[Walker],
    calculator: Calculator,
    root: Path,
    on_steps: Callable[[int], None],
    at_most: int,
) -> list[Outcome]:
    """Move as many walkers in step as the calculator takes; others follow those that end."""
    waiting, running, ended = iter(walkers), list[Course](), list[Course]()
    try:
        while True:
            while len(running) < at_most and _has_room(calculator, running):
                if (walker := next(waiting, None)) is None:
                    break
                running.append(Course(walker, root, on_steps))
            if not running:
                return [_report(course.walker, course.end) for course in ended]
            frames = [course.frame for course in running if course.frame is not None]
            started = time.perf_counter()
            evaluations = iter(evaluate(calculator, frames))
            each_s = (time.perf_counter() - started) / max(sum(map(len, frames)), 1)
            for course in running:
                if course.frame is not None:
                    course.take(next(evaluations), len(course.frame) * each_s)
            ended += [course for course in running if course.frame is None]
            running = [course for course in running if course.frame is not None]
    finally:
        for course in running:
            course.close()


def _has_room(calculator: Calculator, running: Sequence[Course]) -> bool:
    if not isinstance(calculator, BatchCalculator):
        return not running
    n_atoms = sum(len(course.walker.seed) for course in running)
    return calculator.batch_atoms is None or n_atoms < calculator.batch_atoms


@dataclass(frozen=True)
class _Shared:
    """What worker processes have in common."""

    walkers: Sequence[Walker]
    root: Path
    n_workers: int
    next: Any
    """Number of the first walker that no worker took."""
    steps: Any
    """Queue of steps made."""

    def take(self) -> Iterator[Walker]:
        """Walkers for the worker that asks, while there are any."""
        while True:
            with self.next.get_lock():
                number = self.next.value
                self.next.value = number + 1
            if number >= len(self.walkers):
                return
            yield self.walkers[number]

    def stop(self) -> None:
        """Hand out no more."""
        self.next.value = len(self.walkers)


def _run_in_processes(
    walkers: Sequence[Walker],
    factories: Sequence[CalculatorFactory],
    root: Path,
    progress: Progress,
) -> list[Outcome]:
    context = get_context("spawn")  # fork is unsafe once torch has started threads
    # The longest walkers first, so that no core idles at the end.
    order = sorted(walkers, key=lambda walker: -len(walker.seed))
    shared = _Shared(order, root, len(factories), context.Value("q", 0), context.Queue())
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(
        len(factories), context, initializer=_start_worker, initargs=(shared, os.getpid())
    ) as pool:
        pending = {pool.submit(_work, factory) for factory in factories}
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(shared.steps, progress)
            for future in finished:
                if future.exception() is not None:
                    shared.stop()
                outcomes += future.result()
    return outcomes


def _drain(steps: Any, progress: Progress) -> None:
    try:
        while True:
            progress.advance(steps.get_nowait())
    except queue.Empty:
        return


_shared: _Shared | None = None


def _start_worker(shared: _Shared, parent: int) -> None:
    global _shared  # noqa: PLW0603  what processes share can only be inherited
    die_with_parent(parent)
    _shared = shared


def _work(make_calculator: CalculatorFactory) -> list[Outcome]:
    assert _shared is not None
    fair = -(-len(_shared.walkers) // _shared.n_workers)
    return _run_together(
        _shared.take(), make_calculator(), _shared.root, _shared.steps.put, at_most=fair
    )


def _report(walker: Walker, state: Checkpoint) -> Outcome:
    """Cut a walker that once ran longer down to the steps wanted now."""
    settings = walker.settings
    n_steps = min(state.step, settings.n_steps)
    parts = cut_parts(state.parts, n_steps // settings.sample_every, settings.sample_every)
    report = WalkerReport(
        number=walker.number,
        name=walker.name,
        seed_name=walker.seed.info["seed_name"],
        seed_kind=walker.seed.info["seed_kind"],
        target_temperature_K=walker.conditions.temperature_K(n_steps),
        replica=walker.replica,
        n_steps=n_steps,
        n_frames=sum(part.n_frames for part in parts),
        stopped_by=state.stopped_by if state.step <= settings.n_steps else None,
        conditions=f"{walker.conditions.ensemble} {walker.conditions.label}",
        n_atoms=len(walker.seed),
        events=tuple(event for event in state.events if event.step <= settings.n_steps),
        wall_s=state.wall_s,
    )
    return report, parts
