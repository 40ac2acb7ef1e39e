"""One run of a walker in one process: integrate, check the guards, store frames, checkpoint."""

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
from mlip_assets.dynamics.checkpoint import Checkpoint, LastValidFrame
from mlip_assets.dynamics.guards import Guards
from mlip_assets.dynamics.integrator import make_integrator
from mlip_assets.dynamics.walker import Walker
from mlip_assets.surrogates.batch import Evaluation
from mlip_assets.trajectory import FRAME_ID_STRIDE, GuardEvent, Part, PartWriter


class WalkerRun:
    """State of one MD run.

    The run does not evaluate its frames itself: the caller evaluates ``pending_frame`` and passes
    the result to :meth:`advance`. Many runs can therefore share one batched evaluation.

    Parameters
    ----------
    walker
        What to run.
    root
        Folder of the trajectory, on a local file system.
    on_steps
        Called with the number of steps completed since the previous call.

    Attributes
    ----------
    pending_frame
        The frame to evaluate next; None once the run has ended.
    final_checkpoint
        The state at the end; set once the run has ended.

    Raises
    ------
    RuntimeError
        Another process is running the same walker.
    OSError
        Frames or checkpoint cannot be written; frames recorded before are safe.
    """

    pending_frame: Atoms | None
    final_checkpoint: Checkpoint

    def __init__(self, walker: Walker, root: Path, on_steps: Callable[[int], None]) -> None:
        self.walker = walker
        self._settings, self._folder = walker.settings, root / walker.folder
        self._on_steps = on_steps
        self._wall_s = 0.0
        self._integration = self._integrate_locked()
        self._resume(None)

    def advance(self, evaluation: Evaluation, wall_s: float) -> None:
        """Continue to the next frame.

        Parameters
        ----------
        evaluation
            Of ``pending_frame``.
        wall_s
            Time of the evaluation, s.
        """
        started = time.perf_counter()
        self._wall_s += wall_s
        self._resume(evaluation)
        self._wall_s += time.perf_counter() - started

    def close(self) -> None:
        """Release the lock without a new checkpoint; a later run resumes from the last one."""
        self._integration.close()

    def _resume(self, evaluation: Evaluation | None) -> None:
        """Run the generator up to the next frame that needs an evaluation."""
        try:
            self.pending_frame = (
                self._integration.send(evaluation) if evaluation else next(self._integration)
            )
        except StopIteration as stop:
            self.pending_frame, self.final_checkpoint = None, stop.value

    def _integrate_locked(self) -> Generator[Atoms, Evaluation, Checkpoint]:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._folder / "lock", wait=False):
                checkpoint = Checkpoint.load(self._folder)
                if checkpoint is not None and checkpoint.is_done(self._settings.n_steps):
                    return checkpoint
                self._initialise(checkpoint)
                return (yield from self._integrate())
        except BlockingIOError as error:
            raise RuntimeError(
                f"walker {self.walker.name} is being run by another process (lock in "
                f"{self._folder}); wait for that run to end or stop it"
            ) from error

    def _initialise(self, checkpoint: Checkpoint | None) -> None:
        """Set the state: that of the checkpoint, or the initial structure with new velocities."""
        walker = self.walker
        self._rng = np.random.default_rng(walker.random_seed)
        self._guards = Guards(walker.initial_structure, walker.guards)
        atoms = walker.initial_structure.copy()
        atoms.info = {}
        atoms.set_constraint(FixCom())
        self._events: tuple[GuardEvent, ...] = ()
        parts: tuple[Part, ...] = ()
        self._barostat: NDArray[np.float64] | None = None
        self._energy_at_check_eV: float | None = None
        self._step = 0
        if checkpoint is None:
            self._last_valid = LastValidFrame(
                0, 0.0, atoms.positions.copy(), atoms.cell.array.copy()
            )
            thermalize_momenta(atoms, temperature_K=self._target_K(0), rng=self._rng)
        else:
            self._step, self._events = checkpoint.step, checkpoint.events
            self._last_valid, parts = checkpoint.last_valid, checkpoint.parts
            self._wall_s, self._barostat = checkpoint.wall_s, checkpoint.barostat
            self._energy_at_check_eV = checkpoint.energy_eV
            self._rng.bit_generator.state = checkpoint.random_state
            atoms.set_cell(checkpoint.cell)
            atoms.set_positions(checkpoint.positions, apply_constraint=False)
            atoms.set_momenta(checkpoint.momenta, apply_constraint=False)
        self._atoms = atoms
        self._writer = PartWriter(self._folder, parts)
        self._reported_step = self._step

    def _integrate(self) -> Generator[Atoms, Evaluation, Checkpoint]:
        """Yield frames, receive their evaluations; return when all steps are done or a guard stops."""
        settings, guards = self._settings, self.walker.guards
        saved_step = self._step
        self._set_evaluation((yield self._atoms))
        self._start_integrator()
        # An initial structure can violate a guard.
        violation = self._violation(check_structure=self._step == 0)
        if violation is not None:
            self._retry(violation)
        while violation is None and self._step < settings.n_steps:
            self._integrator.set_target_temperature(self._target_K(self._step + 1))
            self._integrator.drift()
            self._set_evaluation((yield self._atoms))
            self._integrator.kick()
            self._step += 1
            sampled = self._step % settings.sample_every == 0
            check_structure = sampled or self._step % guards.check_every == 0
            violation = self._violation(check_structure=check_structure)
            if violation is None and sampled:
                self._store_frame()
            save_due = self._step - saved_step >= settings.checkpoint_every or self._writer.is_full
            while violation is not None and self._retry(violation):
                self._set_evaluation((yield self._atoms))
                self._start_integrator()
                violation, save_due = self._violation(check_structure=False), True
            if violation is None and save_due:
                self._save_checkpoint()
                saved_step = self._step
            if check_structure and self._step > self._reported_step:
                self._on_steps(self._step - self._reported_step)
                self._reported_step = self._step
        self._on_steps(settings.n_steps - self._reported_step)
        return self._save_checkpoint(violation)

    @property
    def _n_retries(self) -> int:
        return sum(event.resumed_from_step is not None for event in self._events)

    @property
    def _timestep_fs(self) -> float:
        factor = self.walker.guards.retry_timestep_factor**self._n_retries
        return float(self._settings.timestep_fs * factor)

    def _target_K(self, step: int) -> float:
        factor = self.walker.guards.retry_temperature_factor**self._n_retries
        return float(self.walker.conditions.temperature_K(step) * factor)

    @property
    def _time_fs(self) -> float:
        step, time_fs = 0, 0.0
        for event in self._events:
            if event.resumed_from_step is not None:
                step, time_fs = event.resumed_from_step, event.resumed_from_fs
        return time_fs + (self._step - step) * self._timestep_fs

    def _set_evaluation(self, evaluation: Evaluation) -> None:
        self._evaluation = self._atoms.calc = evaluation

    def _start_integrator(self) -> None:
        """Make an integrator that starts from the frame evaluated last."""
        self._integrator = make_integrator(
            self._atoms,
            self.walker.conditions,
            self._settings,
            timestep_fs=self._timestep_fs,
            temperature_K=self._target_K(self._step + 1),
            volume_A3=self.walker.initial_structure.cell.volume,
            rng=self._rng,
            barostat=self._barostat,
        )
        if self._energy_at_check_eV is None:
            self._energy_at_check_eV = self._evaluation.energy_eV

    def _violation(self, *, check_structure: bool) -> str | None:
        """The guard that the current frame violates, if any."""
        energy_eV, forces = self._evaluation.energy_eV, self._evaluation.forces
        target_K = self._target_K(self._step)
        violation = self._guards.check_step(self._atoms, energy_eV, forces, target_K)
        if violation is None and not self._integrator.is_finite:
            violation = "nan: the stress is not finite"
        if violation is None and check_structure:
            assert self._energy_at_check_eV is not None
            violation = self._guards.check_structure(
                self._atoms, energy_eV, self._energy_at_check_eV
            )
            self._energy_at_check_eV = energy_eV
        return violation

    def _retry(self, violation: str) -> bool:
        """Return to the last valid frame with a shorter time step and a lower temperature.

        Returns
        -------
        bool
            False when no retry is left, or the initial structure itself violates a guard.
        """
        is_retried = self._n_retries < self.walker.guards.retries and self._step > 0
        reason, _, detail = violation.partition(": ")
        event = GuardEvent(
            step=self._step,
            time_fs=self._time_fs,
            reason=reason,
            detail=detail,
            target_temperature_K=self._target_K(self._step),
            timestep_fs=self._timestep_fs,
            resumed_from_step=self._last_valid.step if is_retried else None,
            resumed_from_fs=self._last_valid.time_fs if is_retried else 0.0,
        )
        self._events = (*self._events, event)
        if is_retried:
            atoms, self._step = self._atoms, self._last_valid.step
            self._barostat, self._energy_at_check_eV = None, None
            atoms.set_cell(self._last_valid.cell)
            atoms.set_positions(self._last_valid.positions, apply_constraint=False)
            thermalize_momenta(atoms, temperature_K=self._target_K(self._step), rng=self._rng)
        return is_retried

    def _store_frame(self) -> None:
        """Append the current frame to the part-file, and remember it as the last valid one."""
        atoms, evaluation = self._atoms, self._evaluation
        self._last_valid = LastValidFrame(
            self._step, self._time_fs, atoms.positions.copy(), atoms.cell.array.copy()
        )
        pressure_GPa = None
        if evaluation.stress is not None:
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            pressure_GPa = -float(np.trace(stress)) / 3 / units.GPa
        spread = evaluation.force_spread
        self._writer.append(
            {
                "frame_id": self.walker.number * FRAME_ID_STRIDE + self._step,
                "walker": self.walker.name,
                "step": self._step,
                "time_fs": self._time_fs,
                "temperature_K": atoms.get_temperature(),
                "target_temperature_K": self._target_K(self._step),
                "pressure_GPa": pressure_GPa,
                "energy_eV": evaluation.energy_eV,
                "force_spread_eV_per_A": None if spread is None else float(spread.max()),
                "cell": atoms.cell.array.ravel().copy(),
                "pbc": atoms.pbc.copy(),
                "numbers": atoms.numbers.astype(np.uint8),
                "positions": atoms.positions.astype(np.float32).ravel(),
                "forces": evaluation.forces.astype(np.float32).ravel(),
            }
        )

    def _save_checkpoint(self, stopped_by: str | None = None) -> Checkpoint:
        atoms = self._atoms
        try:
            checkpoint = Checkpoint(
                step=self._step,
                positions=atoms.get_positions(),
                momenta=atoms.get_momenta(),
                cell=atoms.cell.array.copy(),
                barostat=self._integrator.barostat,
                random_state=dict(self._rng.bit_generator.state),
                energy_eV=self._energy_at_check_eV,
                last_valid=self._last_valid,
                parts=self._writer.flush(),
                events=self._events,
                stopped_by=stopped_by,
                wall_s=self._wall_s,
            )
            checkpoint.save(self._folder)
        except OSError as error:
            raise OSError(
                error.errno,
                f"walker {self.walker.name}: frames up to step {self._step} could not be written "
                f"({error}); make room at {self._folder} and run again: what was recorded "
                "before is safe",
            ) from error
        return checkpoint
