"""Descriptors of a long trajectory: frames a second, peak memory, and a kill −9 half-way.

    python tests/benchmarks/descriptor_scale.py --frames 200000 --atoms 64

A short real trajectory (silicon with the bundled surrogate at 300 and 1200 K) is repeated with
fresh Gaussian noise on every atom of every frame, and written in the frame table's schema. Child
processes describe it: once unbroken, once killed half-way and resumed, once more with nothing left
to do, which is the cost of reading and hashing alone.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlip_assets.campaign import Campaign, DescriptorSettings
from mlip_assets.common.files import as_path
from mlip_assets.common.progress import Progress
from mlip_assets.trajectory import FRAME_SCHEMA, Part, Trajectory, write_part

NOISE_A = 0.02
FRAMES_A_FILE = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--atoms", type=int, default=64, help="8 n³: 8, 64, 216, 512 …")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--engine", choices=("numba", "dscribe"), default="numba")
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks/descriptor-scale"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--describe", type=Path, metavar="FOLDER", help="input of a child process")
    given = parser.parse_args()
    frames = given.work / f"frames-{given.atoms}-{given.frames}-{given.seed}"
    if given.describe:
        describe(frames, given)
        return 0
    if not (frames / "trajectory.json").exists():
        started = time.perf_counter()
        generate(frames, given.frames, real_trajectory(given.work, given.atoms), given.seed)
        print(f"generated in {time.perf_counter() - started:.0f} s: {frames}")
    unbroken, broken = given.work / "unbroken", given.work / "killed"
    for folder in (unbroken, broken):
        shutil.rmtree(folder, ignore_errors=True)
    whole = finished(child(unbroken))
    n_parts = len(parts(unbroken))
    victim = child(broken)
    while len(parts(broken)) < n_parts // 2:
        if victim.poll() is not None:
            raise SystemExit("the child ended before it could be killed; take more frames")
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    survived = parts(broken)
    resumed = finished(child(broken))
    if not survived.items() <= parts(broken).items():
        raise SystemExit("FAILED: a finished part was written again")
    if bytes_of(broken) != bytes_of(unbroken):
        raise SystemExit("FAILED: the resumed matrix has other bytes than the unbroken one")
    again = finished(child(unbroken))
    report(given, whole, resumed, again, (len(survived), n_parts))
    return 0


def real_trajectory(work: Path, n_atoms: int) -> Trajectory:
    """Two hundred frames of molecular dynamics, made once."""
    from ase.build import bulk

    from mlip_assets.dynamics import plan_walkers, run_walkers
    from mlip_assets.surrogates import find_surrogate

    repeats = round((n_atoms / 8) ** (1 / 3))
    atoms = bulk("Si", cubic=True).repeat(repeats)
    if len(atoms) != n_atoms:
        raise SystemExit(f"--atoms: {n_atoms} is not 8 n³; try {len(atoms)}")
    atoms.info.update(seed_name="crystal", seed_kind="crystal")
    campaign = Campaign(
        name="scale", composition="Si", exploration={"n_steps": 300, "sample_every": 3}
    )
    surrogate = find_surrogate("bundled", device="cpu", dtype="float32")
    walkers = plan_walkers(campaign, [atoms], surrogate.sha256)
    return run_walkers(walkers, surrogate.calculator, work / f"dynamics-{n_atoms}")


def generate(folder: Path, n_frames: int, base: Trajectory, seed: int) -> None:
    """Repeat the frames of ``base`` with fresh noise, file by file."""
    rng = np.random.default_rng(seed)
    table = pa.Table.from_batches(base.iter_batches(), FRAME_SCHEMA).combine_chunks()
    n_atoms = len(table["numbers"][0])
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for start in range(0, n_frames, FRAMES_A_FILE):
        ids = np.arange(start, min(start + FRAMES_A_FILE, n_frames))
        rows = table.take(pa.array(ids % len(table)))
        offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * 3 * n_atoms)
        positions = rows["positions"].combine_chunks().flatten().to_numpy()
        noisy = positions + rng.normal(0, NOISE_A, positions.shape).astype(np.float32)
        changed = {
            "frame_id": pa.array(ids),
            "positions": pa.ListArray.from_arrays(offsets, pa.array(noisy)),
        }
        columns = [changed.get(name, rows[name]) for name in FRAME_SCHEMA.names]
        name = f"part-{start:09d}.parquet"
        write_part(folder / name, pa.table(columns, schema=FRAME_SCHEMA))
        made.append(Part(name, len(ids), int(ids[0]), int(ids[-1])))
    trajectory = Trajectory(as_path(folder), tuple(made), ())
    (folder / "trajectory.json").write_text(trajectory.to_json(), encoding="utf-8")


def describe(frames: Path, given: argparse.Namespace) -> None:
    """In a child: describe everything and print what it took as JSON."""
    from mlip_assets.descriptors import compute_descriptors, soap_power_spectrum

    settings = DescriptorSettings(implementation=given.engine, precision=given.precision)
    text = (frames / "trajectory.json").read_text(encoding="utf-8")
    trajectory = Trajectory.from_json(as_path(frames), text)
    started = time.perf_counter()
    soap_power_spectrum(  # loads the kernel, or compiles it where no cache is
        np.zeros((1, 3)),
        np.eye(3),
        False,
        [14],
        species=["Si"],
        **settings.soap_arguments(),
    )
    first_call_s = time.perf_counter() - started
    started, cpu = time.perf_counter(), time.process_time()
    peaks: list[int] = []
    progress = Progress(
        "SOAP",
        trajectory.n_frames,
        "frames",
        every_s=0,
        on_progress=lambda _: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    )
    matrix = compute_descriptors(
        trajectory, settings, ["Si"], given.describe, progress=progress, n_threads=given.threads
    )
    print(
        json.dumps(
            {
                "first_call_s": first_call_s,
                "wall_s": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu,
                "computed": progress.done - progress.already_done,
                "peak_MiB": peaks[-1] / 1024,
                "peak_at_quarter_MiB": peaks[len(peaks) // 4] / 1024,
                "bytes_a_frame": matrix.n_bytes / matrix.n_frames,
            }
        )
    )


def child(folder: Path) -> subprocess.Popen[str]:
    """Start this script as a child that describes into ``folder``."""
    command = [sys.executable, *sys.argv, "--describe", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, float]:
    """What the child measured."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the child failed with status {process.returncode}")
    measured: dict[str, float] = json.loads(output)
    return measured


def parts(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished parts: which file, and written when."""
    stats = {file.name: file.stat() for file in folder.glob("part-*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def bytes_of(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def report(
    given: argparse.Namespace,
    whole: dict[str, float],
    resumed: dict[str, float],
    again: dict[str, float],
    survived: tuple[int, int],
) -> None:
    rate = given.frames / whole["wall_s"]
    reading = given.frames / again["wall_s"]
    rows = {
        "frames × atoms": f"{given.frames} × {given.atoms}",
        "engine": f"{given.engine} {given.precision}, {given.threads} threads",
        "first call": f"{whole['first_call_s']:.1f} s, then {resumed['first_call_s']:.1f} s",
        "unbroken": f"{whole['wall_s']:.1f} s wall, {whole['cpu_s']:.1f} s CPU",
        "rate": f"{rate:.0f} frames/s",
        "reading and hashing alone": f"{reading:.0f} frames/s ({100 * rate / reading:.1f} % of it)",
        "peak RSS": f"{whole['peak_MiB']:.0f} MiB ({whole['peak_at_quarter_MiB']:.0f} at a quarter), "
        f"{resumed['peak_MiB']:.0f} MiB resumed",
        "killed −9 after": f"{survived[0]} of {survived[1]} parts",
        "resumed": f"{resumed['wall_s']:.1f} s for {resumed['computed']:.0f} frames; same bytes",
        "stored": f"{whole['bytes_a_frame']:.0f} bytes/frame",
        "10 million frames": f"{1e7 / rate / 60:.0f} min, "
        f"{whole['bytes_a_frame'] * 1e7 / 1e9:.1f} GB, the same memory",
    }
    for name, value in rows.items():
        print(f"{name:<28}{value}")


if __name__ == "__main__":
    sys.exit(main())
