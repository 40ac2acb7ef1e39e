"""The walker: one seed under one set of conditions, guarded, resumable bit by bit."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixCom
from ase.md.velocitydistribution import thermalize_momenta
from numpy.typing import NDArray

from mlip_assets.campaign import Campaign, ExplorationSettings, GuardSettings, fingerprint
from mlip_assets.dynamics.conditions import Conditions, conditions_of
from mlip_assets.dynamics.guards import Guards
from mlip_assets.dynamics.integrator import INTEGRATOR, make_integrator
from mlip_assets.dynamics.trajectory import (
    FRAME_ID_STRIDE,
    GuardEvent,
    Part,
    PartWriter,
    WalkerReport,
    cut_parts,
)
from mlip_assets.files import locked, write_atomically


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
        settings = self.settings.model_dump(
            include={
                "dtype",
                "engine",
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


@dataclass(frozen=True)
class _Good:
    """The last stored frame, from which a retry goes on."""

    step: int
    time_fs: float
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]


@dataclass(frozen=True)
class _Checkpoint:
    """Where a walker stands: enough to go on as if it had never stopped."""

    step: int
    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]
    barostat: NDArray[np.float64] | None
    random_state: dict[str, Any]
    energy_eV: float | None
    """At the last look of the guards."""
    good: _Good
    parts: tuple[Part, ...] = ()
    events: tuple[GuardEvent, ...] = ()
    stopped_by: str | None = None
    wall_s: float = 0.0

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {
            "positions": self.positions,
            "momenta": self.momenta,
            "cell": self.cell,
            "good_positions": self.good.positions,
            "good_cell": self.good.cell,
        }
        if self.barostat is not None:
            arrays["barostat"] = self.barostat
        plain = {
            "step": self.step,
            "random_state": self.random_state,
            "energy_eV": self.energy_eV,
            "good": [self.good.step, self.good.time_fs],
            "parts": [asdict(part) for part in self.parts],
            "events": [asdict(event) for event in self.events],
            "stopped_by": self.stopped_by,
            "wall_s": self.wall_s,
        }
        with write_atomically(path) as temporary:
            np.savez(temporary, plain=np.array(json.dumps(plain)), **arrays)

    @classmethod
    def load(cls, path: Path) -> _Checkpoint:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain = json.loads(str(arrays.pop("plain")))
        plain["parts"] = tuple(Part(**part) for part in plain["parts"])
        plain["events"] = tuple(GuardEvent(**event) for event in plain["events"])
        step, time_fs = plain.pop("good")
        good = _Good(step, time_fs, arrays.pop("good_positions"), arrays.pop("good_cell"))
        arrays.setdefault("barostat", None)
        return cls(good=good, **arrays, **plain)


def plan_walkers(campaign: Campaign, seeds: Sequence[Atoms], surrogate_sha256: str) -> list[Walker]:
    """Every seed × temperature or ramp × pressure × replica of a campaign.

    Replicas are the outermost loop, so that asking for more of them leaves the numbers, and with
    them the frame identifiers, of the others as they were. Each walker draws its random numbers
    from a stream of its own, derived from the campaign's seed and the walker's name. A seed that is
    not periodic in all directions has no pressure: it runs at constant volume, once a temperature.
    """
    exploration = campaign.exploration
    cases: dict[str, tuple[int, Conditions, Atoms]] = {}
    for replica in range(exploration.replicas):
        for conditions in conditions_of(exploration):
            for seed in seeds:
                own = conditions if seed.pbc.all() else conditions.at_constant_volume()
                name = f"{seed.info['seed_name']}_{own.label}_r{replica}"
                cases.setdefault(name, (replica, own, seed))
    walkers = []
    for number, (name, (replica, conditions, seed)) in enumerate(cases.items()):
        walkers.append(
            Walker(
                number=number,
                name=name,
                seed=seed,
                conditions=conditions,
                replica=replica,
                random_seed=(campaign.seed, zlib.crc32(name.encode())),
                settings=exploration,
                guards=campaign.guards,
                surrogate_sha256=surrogate_sha256,
            )
        )
    return walkers


def steps_done(walker: Walker, root: Path) -> int:
    """Return how many of a walker's steps need no more computing (all, when a guard stopped it)."""
    state = _checkpoint(walker, root)
    if state is None:
        return 0
    wanted = walker.settings.n_steps
    return wanted if state.stopped_by else min(state.step, wanted)


def finished_walker(walker: Walker, root: Path) -> tuple[WalkerReport, tuple[Part, ...]] | None:
    """What :func:`run_walker` returns, for a walker that needs no more computing; else None."""
    state = _checkpoint(walker, root)
    return _report(walker, state) if state and _is_done(walker, state) else None


def run_walker(
    walker: Walker,
    calculator: Calculator,
    root: Path,
    *,
    on_steps: Callable[[int], None] = lambda _: None,
) -> tuple[WalkerReport, tuple[Part, ...]]:
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
    folder = root / walker.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / "lock", wait=False):
            state = _checkpoint(walker, root)
            if state is None or not _is_done(walker, state):
                state = _Run(walker, calculator, folder, state, on_steps).to_the_end()
    except BlockingIOError as error:
        raise RuntimeError(
            f"walker {walker.name} is being run by another process (lock in {folder}); wait for "
            "that run to end or stop it"
        ) from error
    return _report(walker, state)


class _Run:
    """A walker on its way through one process."""

    def __init__(
        self,
        walker: Walker,
        calculator: Calculator,
        folder: Path,
        state: _Checkpoint | None,
        on_steps: Callable[[int], None],
    ) -> None:
        self._walker, self._settings, self._file = (
            walker,
            walker.settings,
            folder / "checkpoint.npz",
        )
        self._on_steps = on_steps
        self._rng = np.random.default_rng(walker.random_seed)
        self._guards = Guards(walker.seed, walker.guards)
        atoms = walker.seed.copy()
        atoms.info = {}
        atoms.set_constraint(FixCom())
        self._events: tuple[GuardEvent, ...] = ()
        parts: tuple[Part, ...] = ()
        barostat, energy_eV = None, None
        self._step, self._wall_s = 0, 0.0
        if state is None:
            self._good = _Good(0, 0.0, atoms.positions.copy(), atoms.cell.array.copy())
            thermalize_momenta(atoms, temperature_K=self._target_K(0), rng=self._rng)
        else:
            self._step, self._events, self._good = state.step, state.events, state.good
            self._wall_s, parts = state.wall_s, state.parts
            barostat, energy_eV = state.barostat, state.energy_eV
            self._rng.bit_generator.state = state.random_state
            atoms.set_cell(state.cell)
            atoms.set_positions(state.positions, apply_constraint=False)
            atoms.set_momenta(state.momenta, apply_constraint=False)
        self._atoms, self._calculator = atoms, calculator
        self._atoms.calc = calculator
        self._writer = PartWriter(folder, parts)
        self._told = self._step
        self._started = time.perf_counter()
        self._prepare(barostat, energy_eV)

    def to_the_end(self) -> _Checkpoint:
        settings, guards = self._settings, self._walker.guards
        saved_at = self._step
        broken = self._broken_guard(look=self._step == 0)  # a seed may be beyond the guards
        if broken is not None:
            self._retry(broken)
        while broken is None and self._step < settings.n_steps:
            self._move()
            sampled = self._step % settings.sample_every == 0
            look = sampled or self._step % guards.check_every == 0
            broken = self._broken_guard(look=look)
            if broken is None and sampled:
                self._store()
            due = self._step - saved_at >= settings.checkpoint_every or self._writer.is_full
            while broken is not None and self._retry(broken):
                broken, due = self._broken_guard(look=False), True
            if broken is None and due:
                self._save()
                saved_at = self._step
            if look and self._step > self._told:
                self._on_steps(self._step - self._told)
                self._told = self._step
        self._on_steps(settings.n_steps - self._told)
        return self._save(broken)

    @property
    def _n_retries(self) -> int:
        return sum(event.resumed_from_step is not None for event in self._events)

    @property
    def _timestep_fs(self) -> float:
        shortened = self._walker.guards.retry_timestep_factor**self._n_retries
        return float(self._settings.timestep_fs * shortened)

    def _target_K(self, step: int) -> float:
        lowered = self._walker.guards.retry_temperature_factor**self._n_retries
        return float(self._walker.conditions.temperature_K(step) * lowered)

    @property
    def _time_fs(self) -> float:
        step, time_fs = 0, 0.0
        for event in self._events:
            if event.resumed_from_step is not None:
                step, time_fs = event.resumed_from_step, event.resumed_from_fs
        return time_fs + (self._step - step) * self._timestep_fs

    def _prepare(self, barostat: NDArray[np.float64] | None, energy_eV: float | None) -> None:
        self._integrator = make_integrator(
            self._atoms,
            self._walker.conditions,
            self._settings,
            timestep_fs=self._timestep_fs,
            temperature_K=self._target_K(self._step + 1),
            volume_A3=self._walker.seed.cell.volume,
            rng=self._rng,
            barostat=barostat,
        )
        self._energy_eV = self._energy() if energy_eV is None else energy_eV

    def _move(self) -> None:
        self._integrator.heat_to(self._target_K(self._step + 1))
        self._integrator.move()
        self._step += 1

    def _energy(self) -> float:
        return float(self._atoms.get_potential_energy())

    def _forces(self) -> NDArray[np.float64]:
        forces: NDArray[np.float64] = self._atoms.get_forces(apply_constraint=False)
        return forces

    def _broken_guard(self, *, look: bool) -> str | None:
        energy_eV = self._energy()
        target_K = self._target_K(self._step)
        broken = self._guards.broken_in_step(self._atoms, energy_eV, self._forces(), target_K)
        if broken is None and not self._integrator.is_finite:
            broken = "nan: the stress is not finite"
        if broken is None and look:
            broken = self._guards.broken_since(self._atoms, energy_eV, self._energy_eV)
            self._energy_eV = energy_eV
        return broken

    def _retry(self, broken: str) -> bool:
        """Go back to the last good frame, slower and colder; False when it was tried enough."""
        again = self._n_retries < self._walker.guards.retries and self._step > 0
        reason, _, detail = broken.partition(": ")
        event = GuardEvent(
            step=self._step,
            time_fs=self._time_fs,
            reason=reason,
            detail=detail,
            target_temperature_K=self._target_K(self._step),
            timestep_fs=self._timestep_fs,
            resumed_from_step=self._good.step if again else None,
            resumed_from_fs=self._good.time_fs if again else 0.0,
        )
        self._events = (*self._events, event)
        if again:
            atoms, self._step = self._atoms, self._good.step
            atoms.set_cell(self._good.cell)
            atoms.set_positions(self._good.positions, apply_constraint=False)
            thermalize_momenta(atoms, temperature_K=self._target_K(self._step), rng=self._rng)
            self._prepare(None, None)
        return again

    def _store(self) -> None:
        atoms = self._atoms
        self._good = _Good(
            self._step, self._time_fs, atoms.positions.copy(), atoms.cell.array.copy()
        )
        pressure_GPa = None
        if atoms.pbc.all():
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            pressure_GPa = -float(np.trace(stress)) / 3 / units.GPa
        self._writer.append(
            {
                "frame_id": self._walker.number * FRAME_ID_STRIDE + self._step,
                "walker": self._walker.name,
                "step": self._step,
                "time_fs": self._time_fs,
                "temperature_K": atoms.get_temperature(),
                "target_temperature_K": self._target_K(self._step),
                "pressure_GPa": pressure_GPa,
                "energy_eV": self._energy(),
                "cell": atoms.cell.array.ravel().copy(),
                "pbc": atoms.pbc.copy(),
                "numbers": atoms.numbers.astype(np.uint8),
                "positions": atoms.positions.astype(np.float32).ravel(),
                "forces": self._forces().astype(np.float32).ravel(),
            }
        )

    def _save(self, stopped_by: str | None = None) -> _Checkpoint:
        now = time.perf_counter()
        self._wall_s += now - self._started
        self._started = now
        atoms, integrator = self._atoms, self._integrator
        try:
            state = _Checkpoint(
                step=self._step,
                positions=atoms.get_positions(),
                momenta=atoms.get_momenta(),
                cell=atoms.cell.array.copy(),
                barostat=integrator.barostat,
                random_state=dict(self._rng.bit_generator.state),
                energy_eV=self._energy_eV,
                good=self._good,
                parts=self._writer.flush(),
                events=self._events,
                stopped_by=stopped_by,
                wall_s=self._wall_s,
            )
            state.save(self._file)
        except OSError as error:
            raise OSError(
                error.errno,
                f"walker {self._walker.name}: frames up to step {self._step} could not be written "
                f"({error}); make room at {self._file.parent} and run again: what was recorded "
                "before is safe",
            ) from error
        return state


def _checkpoint(walker: Walker, root: Path) -> _Checkpoint | None:
    file = root / walker.folder / "checkpoint.npz"
    return _Checkpoint.load(file) if file.exists() else None


def _is_done(walker: Walker, state: _Checkpoint) -> bool:
    return state.stopped_by is not None or state.step >= walker.settings.n_steps


def _report(walker: Walker, state: _Checkpoint) -> tuple[WalkerReport, tuple[Part, ...]]:
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
