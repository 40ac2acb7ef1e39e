"""The walker: one seed at one temperature, moved by Langevin dynamics, resumable bit by bit."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from mlip_assets.campaign import Campaign, ExplorationSettings, GuardSettings, fingerprint
from mlip_assets.dynamics.guards import broken_guard
from mlip_assets.dynamics.trajectory import FRAME_ID_STRIDE, Part, WalkerReport, write_part
from mlip_assets.files import locked, write_atomically

#: Frames in a part-file; a kill loses at most this many frames of a walker.
PART_FRAMES = 50


@dataclass(frozen=True)
class Walker:
    """What one walker is to do.

    ``fingerprint`` covers everything that decides its frames except how long it runs, so that
    asking for more steps continues it and changing anything else starts afresh.
    """

    number: int
    name: str
    seed: Atoms
    target_temperature_K: float
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
                "ensemble",
                "timestep_fs",
                "friction_per_ps",
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
            "temperature_K": self.target_temperature_K,
            "random_seed": list(self.random_seed),
            "surrogate_sha256": self.surrogate_sha256,
        }
        return fingerprint(settings, self.guards, structure, identity)

    @property
    def folder(self) -> str:
        """Folder of its files, relative to the trajectory's root."""
        return f"{self.name}.{self.fingerprint[:12]}"


@dataclass(frozen=True)
class _Checkpoint:
    """Where a walker stands: enough to go on as if it had never stopped."""

    step: int
    positions: np.ndarray
    momenta: np.ndarray
    random_state: dict[str, Any]
    parts: tuple[Part, ...] = ()
    stopped_by: str | None = None

    def save(self, path: Path) -> None:
        plain = {
            "step": self.step,
            "random_state": self.random_state,
            "parts": [asdict(part) for part in self.parts],
            "stopped_by": self.stopped_by,
        }
        with write_atomically(path) as temporary:
            np.savez(
                temporary,
                positions=self.positions,
                momenta=self.momenta,
                plain=np.array(json.dumps(plain)),
            )

    @classmethod
    def load(cls, path: Path) -> _Checkpoint:
        with np.load(path, allow_pickle=False) as stored:
            plain = json.loads(str(stored["plain"]))
            plain["parts"] = tuple(Part(**part) for part in plain["parts"])
            return cls(positions=stored["positions"], momenta=stored["momenta"], **plain)


def plan_walkers(campaign: Campaign, seeds: Sequence[Atoms], surrogate_sha256: str) -> list[Walker]:
    """Every seed × temperature × replica of a campaign.

    Replicas are the outermost loop, so that asking for more of them leaves the numbers, and with
    them the frame identifiers, of the others as they were. Each walker draws its random numbers
    from a stream of its own, derived from the campaign's seed and the walker's name.
    """
    exploration = campaign.exploration
    cases = [
        (replica, temperature, seed)
        for replica in range(exploration.replicas)
        for temperature in exploration.temperatures_K
        for seed in seeds
    ]
    walkers = []
    for number, (replica, temperature, seed) in enumerate(cases):
        name = f"{seed.info['seed_name']}_{temperature:g}K_r{replica}"
        walkers.append(
            Walker(
                number=number,
                name=name,
                seed=seed,
                target_temperature_K=temperature,
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
    checkpoint = root / walker.folder / "checkpoint.npz"
    if not checkpoint.exists():
        return 0
    state = _Checkpoint.load(checkpoint)
    wanted = walker.settings.n_steps
    return wanted if state.stopped_by else min(state.step, wanted)


def run_walker(
    walker: Walker,
    calculator: Calculator,
    root: Path,
    *,
    on_steps: Callable[[int], None] = lambda _: None,
) -> tuple[WalkerReport, tuple[Part, ...]]:
    """Run one walker to exactly ``settings.n_steps``, or until a guard stops it.

    Frames go to part-files below ``root`` as the walker moves. When the process is killed, the
    next call goes on from the last part-file and ends with the same frames as an unbroken run.

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
    """
    folder = root / walker.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / "lock", wait=False):
            state = _advance(walker, calculator, folder, on_steps)
    except BlockingIOError as error:
        raise RuntimeError(
            f"walker {walker.name} is being run by another process (lock in {folder}); wait for "
            "that run to end or stop it"
        ) from error
    return _report(walker, state)


def _advance(
    walker: Walker, calculator: Calculator, folder: Path, on_steps: Callable[[int], None]
) -> _Checkpoint:
    settings = walker.settings
    checkpoint = folder / "checkpoint.npz"
    rng = np.random.default_rng(walker.random_seed)
    atoms = walker.seed.copy()
    atoms.info = {}
    atoms.set_constraint(FixCom())
    if checkpoint.exists():
        state = _Checkpoint.load(checkpoint)
        rng.bit_generator.state = state.random_state
        atoms.set_positions(state.positions, apply_constraint=False)
        atoms.set_momenta(state.momenta, apply_constraint=False)
    else:
        thermalize_momenta(atoms, temperature_K=walker.target_temperature_K, rng=rng)
        state = _snapshot(atoms, rng, 0, (), None)
    if state.stopped_by or state.step >= settings.n_steps:
        return state

    atoms.calc = calculator
    dynamics = Langevin(
        atoms,
        settings.timestep_fs * units.fs,
        temperature_K=walker.target_temperature_K,
        friction=settings.friction_per_ps / (1000 * units.fs),
        fixcm=False,  # FixCom does it, and samples the right distribution
        rng=rng,
    )
    rows: list[dict[str, Any]] = []
    told = state.step
    for step in range(state.step + 1, settings.n_steps + 1):
        dynamics.step()
        sampled = step % settings.sample_every == 0
        last = step == settings.n_steps
        stopped_by = None
        if sampled or last or step % walker.guards.check_every == 0:
            stopped_by = _broken_guard(atoms, walker)
            on_steps(step - told)
            told = step
        if sampled and stopped_by is None:
            rows.append(_row(atoms, walker, step))
        if len(rows) == PART_FRAMES or last or stopped_by:
            parts = (*state.parts, *_flush(rows, folder, len(state.parts)))
            state = _snapshot(atoms, rng, step, parts, stopped_by)
            state.save(checkpoint)
            rows = []
        if stopped_by:
            on_steps(settings.n_steps - step)
            break
    return state


def _broken_guard(atoms: Atoms, walker: Walker) -> str | None:
    return broken_guard(
        atoms,
        energy_eV=atoms.get_potential_energy(),
        forces=atoms.get_forces(apply_constraint=False),
        target_temperature_K=walker.target_temperature_K,
        guards=walker.guards,
    )


def _row(atoms: Atoms, walker: Walker, step: int) -> dict[str, Any]:
    pressure_GPa = None
    if atoms.pbc.all():
        stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
        pressure_GPa = -float(np.trace(stress)) / 3 / units.GPa
    return {
        "frame_id": walker.number * FRAME_ID_STRIDE + step,
        "walker": walker.name,
        "step": step,
        "time_fs": step * walker.settings.timestep_fs,
        "temperature_K": atoms.get_temperature(),
        "target_temperature_K": walker.target_temperature_K,
        "pressure_GPa": pressure_GPa,
        "energy_eV": float(atoms.get_potential_energy()),
        "cell": atoms.cell.array.ravel(),
        "pbc": atoms.pbc.tolist(),
        "numbers": atoms.numbers.astype(np.uint8),
        "positions": atoms.positions.astype(np.float32).ravel(),
        "forces": atoms.get_forces(apply_constraint=False).astype(np.float32).ravel(),
    }


def _flush(rows: list[dict[str, Any]], folder: Path, number: int) -> tuple[Part, ...]:
    if not rows:
        return ()
    path = folder / f"part-{number:05d}.parquet"
    write_part(path, rows)
    relative = f"{folder.name}/{path.name}"
    return (Part(relative, len(rows), rows[0]["frame_id"], rows[-1]["frame_id"]),)


def _snapshot(
    atoms: Atoms,
    rng: np.random.Generator,
    step: int,
    parts: tuple[Part, ...],
    stopped_by: str | None,
) -> _Checkpoint:
    state = dict(rng.bit_generator.state)
    return _Checkpoint(step, atoms.get_positions(), atoms.get_momenta(), state, parts, stopped_by)


def _report(walker: Walker, state: _Checkpoint) -> tuple[WalkerReport, tuple[Part, ...]]:
    """Cut a walker that once ran longer down to the steps wanted now."""
    wanted = walker.settings.n_steps // walker.settings.sample_every
    parts: list[Part] = []
    for part in state.parts:
        n_frames = min(part.n_frames, wanted - sum(p.n_frames for p in parts))
        if n_frames > 0:
            last = part.first_frame_id + (n_frames - 1) * walker.settings.sample_every
            parts.append(replace(part, n_frames=n_frames, last_frame_id=last))
    stopped = state.stopped_by if state.step <= walker.settings.n_steps else None
    report = WalkerReport(
        number=walker.number,
        name=walker.name,
        seed_name=walker.seed.info["seed_name"],
        seed_kind=walker.seed.info["seed_kind"],
        target_temperature_K=walker.target_temperature_K,
        replica=walker.replica,
        n_steps=min(state.step, walker.settings.n_steps),
        n_frames=sum(part.n_frames for part in parts),
        stopped_by=stopped,
    )
    return report, tuple(parts)
