"""The course of a walker: from where it stands to its last step, one evaluation after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.velocitydistribution import thermalize_momenta
from numpy.typing import NDArray

from mlip_assets.common.files import locked
from mlip_assets.dynamics.checkpoint import Checkpoint, Good
from mlip_assets.dynamics.guards import Guards
from mlip_assets.dynamics.integrator import make_integrator
from mlip_assets.dynamics.walker import Walker
from mlip_assets.surrogates.batch import Evaluation
from mlip_assets.trajectory import FRAME_ID_STRIDE, GuardEvent, Part, PartWriter


class Course:
    """A walker on its way through one process.

    It does not know who evaluates its frames, so that many courses can share one evaluation.

    Attributes
    ----------
    frame
        What it wants evaluated next; None once it has ended.
    end
        Where it stands then.

    Raises
    ------
    RuntimeError
        Another process is running the same walker.
    OSError
        Frames or checkpoint cannot be written; what was recorded before is safe.
    """

    frame: Atoms | None
    end: Checkpoint

    def __init__(self, walker: Walker, root: Path, on_steps: Callable[[int], None]) -> None:
        self.walker = walker
        self._settings, self._folder = walker.settings, root / walker.folder
        self._on_steps = on_steps
        self._wall_s = 0.0
        self._moves = self._locked_moves()
        self._go_on(None)

    def take(self, evaluation: Evaluation, wall_s: float) -> None:
        """Go on from ``frame``, whose evaluation took so long."""
        started = time.perf_counter()
        self._wall_s += wall_s
        self._go_on(evaluation)
        self._wall_s += time.perf_counter() - started

    def close(self) -> None:
        """Leave it as it is; the last checkpoint counts."""
        self._moves.close()

    def _go_on(self, evaluation: Evaluation | None) -> None:
        try:
            self.frame = self._moves.send(evaluation) if evaluation else next(self._moves)
        except StopIteration as stop:
            self.frame, self.end = None, stop.value

    def _locked_moves(self) -> Generator[Atoms, Evaluation, Checkpoint]:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._folder / "lock", wait=False):
                state = Checkpoint.find(self._folder)
                if state is not None and state.is_done(self._settings.n_steps):
                    return state
                self._set_out(state)
                return (yield from self._all_moves())
        except BlockingIOError as error:
            raise RuntimeError(
                f"walker {self.walker.name} is being run by another process (lock in "
                f"{self._folder}); wait for that run to end or stop it"
            ) from error

    def _set_out(self, state: Checkpoint | None) -> None:
        """From the seed, or from where an earlier run left it."""
        walker = self.walker
        self._rng = np.random.default_rng(walker.random_seed)
        self._guards = Guards(walker.seed, walker.guards)
        atoms = walker.seed.copy()
        atoms.info = {}
        atoms.set_constraint(FixCom())
        self._events: tuple[GuardEvent, ...] = ()
        parts: tuple[Part, ...] = ()
        self._barostat: NDArray[np.float64] | None = None
        self._energy_eV: float | None = None
        self._step = 0
        if state is None:
            self._good = Good(0, 0.0, atoms.positions.copy(), atoms.cell.array.copy())
            thermalize_momenta(atoms, temperature_K=self._target_K(0), rng=self._rng)
        else:
            self._step, self._events, self._good = state.step, state.events, state.good
            self._wall_s, parts = state.wall_s, state.parts
            self._barostat, self._energy_eV = state.barostat, state.energy_eV
            self._rng.bit_generator.state = state.random_state
            atoms.set_cell(state.cell)
            atoms.set_positions(state.positions, apply_constraint=False)
            atoms.set_momenta(state.momenta, apply_constraint=False)
        self._atoms = atoms
        self._writer = PartWriter(self._folder, parts)
        self._told = self._step

    def _all_moves(self) -> Generator[Atoms, Evaluation, Checkpoint]:
        """To the last step or the last guard."""
        settings, guards = self._settings, self.walker.guards
        saved_at = self._step
        self._take((yield self._atoms))
        self._start()
        broken = self._broken_guard(look=self._step == 0)  # a seed may be beyond the guards
        if broken is not None:
            self._retry(broken)
        while broken is None and self._step < settings.n_steps:
            self._integrator.heat_to(self._target_K(self._step + 1))
            self._integrator.drift()
            self._take((yield self._atoms))
            self._integrator.kick()
            self._step += 1
            sampled = self._step % settings.sample_every == 0
            look = sampled or self._step % guards.check_every == 0
            broken = self._broken_guard(look=look)
            if broken is None and sampled:
                self._store()
            due = self._step - saved_at >= settings.checkpoint_every or self._writer.is_full
            while broken is not None and self._retry(broken):
                self._take((yield self._atoms))
                self._start()
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
        shortened = self.walker.guards.retry_timestep_factor**self._n_retries
        return float(self._settings.timestep_fs * shortened)

    def _target_K(self, step: int) -> float:
        lowered = self.walker.guards.retry_temperature_factor**self._n_retries
        return float(self.walker.conditions.temperature_K(step) * lowered)

    @property
    def _time_fs(self) -> float:
        step, time_fs = 0, 0.0
        for event in self._events:
            if event.resumed_from_step is not None:
                step, time_fs = event.resumed_from_step, event.resumed_from_fs
        return time_fs + (self._step - step) * self._timestep_fs

    def _take(self, evaluation: Evaluation) -> None:
        self._known = self._atoms.calc = evaluation

    def _start(self) -> None:
        """Begin to move, from a frame that was just evaluated."""
        self._integrator = make_integrator(
            self._atoms,
            self.walker.conditions,
            self._settings,
            timestep_fs=self._timestep_fs,
            temperature_K=self._target_K(self._step + 1),
            volume_A3=self.walker.seed.cell.volume,
            rng=self._rng,
            barostat=self._barostat,
        )
        if self._energy_eV is None:
            self._energy_eV = self._known.energy_eV

    def _broken_guard(self, *, look: bool) -> str | None:
        known, target_K = self._known, self._target_K(self._step)
        broken = self._guards.broken_in_step(self._atoms, known.energy_eV, known.forces, target_K)
        if broken is None and not self._integrator.is_finite:
            broken = "nan: the stress is not finite"
        if broken is None and look:
            assert self._energy_eV is not None
            broken = self._guards.broken_since(self._atoms, known.energy_eV, self._energy_eV)
            self._energy_eV = known.energy_eV
        return broken

    def _retry(self, broken: str) -> bool:
        """Go back to the last good frame, slower and colder; False when it was tried enough."""
        again = self._n_retries < self.walker.guards.retries and self._step > 0
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
            self._barostat, self._energy_eV = None, None
            atoms.set_cell(self._good.cell)
            atoms.set_positions(self._good.positions, apply_constraint=False)
            thermalize_momenta(atoms, temperature_K=self._target_K(self._step), rng=self._rng)
        return again

    def _store(self) -> None:
        atoms, known = self._atoms, self._known
        self._good = Good(
            self._step, self._time_fs, atoms.positions.copy(), atoms.cell.array.copy()
        )
        pressure_GPa = None
        if known.stress is not None:
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            pressure_GPa = -float(np.trace(stress)) / 3 / units.GPa
        self._writer.append(
            {
                "frame_id": self.walker.number * FRAME_ID_STRIDE + self._step,
                "walker": self.walker.name,
                "step": self._step,
                "time_fs": self._time_fs,
                "temperature_K": atoms.get_temperature(),
                "target_temperature_K": self._target_K(self._step),
                "pressure_GPa": pressure_GPa,
                "energy_eV": known.energy_eV,
                "force_spread_eV_per_A": (
                    None if known.force_spread is None else float(known.force_spread.max())
                ),
                "cell": atoms.cell.array.ravel().copy(),
                "pbc": atoms.pbc.copy(),
                "numbers": atoms.numbers.astype(np.uint8),
                "positions": atoms.positions.astype(np.float32).ravel(),
                "forces": known.forces.astype(np.float32).ravel(),
            }
        )

    def _save(self, stopped_by: str | None = None) -> Checkpoint:
        atoms = self._atoms
        try:
            state = Checkpoint(
                step=self._step,
                positions=atoms.get_positions(),
                momenta=atoms.get_momenta(),
                cell=atoms.cell.array.copy(),
                barostat=self._integrator.barostat,
                random_state=dict(self._rng.bit_generator.state),
                energy_eV=self._energy_eV,
                good=self._good,
                parts=self._writer.flush(),
                events=self._events,
                stopped_by=stopped_by,
                wall_s=self._wall_s,
            )
            state.save(self._folder)
        except OSError as error:
            raise OSError(
                error.errno,
                f"walker {self.walker.name}: frames up to step {self._step} could not be written "
                f"({error}); make room at {self._folder} and run again: what was recorded "
                "before is safe",
            ) from error
        return state
