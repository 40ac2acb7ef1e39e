"""A million frames through the walkers' own writer, read back in order and at random.

    python tests/benchmarks/trajectory_scale.py --frames 1000000 --atoms 64 --json out.json

Frames are synthetic: a crystal whose atoms swing about their sites in single precision noise, the
hardest case for compression. ``MB`` are 10⁶ bytes of what the arrays hold (positions and forces in
float32, cell in float64). Extended XYZ and ASE's ``.traj`` are written by :meth:`Trajectory.export`
for a subset and extrapolated by frame, which their formats allow: every frame costs the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

from mlip_assets.trajectory import (
    FRAME_ID_STRIDE,
    PartWriter,
    Trajectory,
    WalkerReport,
)

WALKER_FRAMES = 50_000


def synthetic_frames(n_atoms: int, n_frames: int, walker: int) -> Iterator[dict[str, Any]]:
    """Rows as a walker stores them."""
    crystal = bulk("Si", cubic=True)
    repeats = round((n_atoms / len(crystal)) ** (1 / 3)) or 1
    atoms = crystal.repeat(repeats)
    assert len(atoms) == n_atoms, f"{n_atoms} atoms are no cube of silicon cells"
    rng = np.random.default_rng(walker)
    cell, numbers = atoms.cell.array.ravel(), atoms.numbers.astype(np.uint8)
    for step in range(1, n_frames + 1):
        noise = rng.standard_normal((2, n_atoms, 3), dtype=np.float32)
        yield {
            "frame_id": walker * FRAME_ID_STRIDE + step,
            "walker": f"w{walker}",
            "step": step,
            "time_fs": 2.0 * step,
            "temperature_K": 300 + float(noise[0, 0, 0]),
            "target_temperature_K": 300.0,
            "pressure_GPa": float(noise[0, 0, 1]),
            "energy_eV": -300 + float(noise[0, 0, 2]),
            "force_spread_eV_per_A": None,
            "cell": cell,
            "pbc": atoms.pbc,
            "numbers": numbers,
            "positions": (atoms.positions + 0.1 * noise[0]).astype(np.float32).ravel(),
            "forces": noise[1].ravel(),
        }


def write(
    root: Path, n_atoms: int, n_frames: int, checkpoint_frames: int
) -> tuple[Trajectory, float]:
    """All frames through the writer; the trajectory, and the time without making the frames."""
    parts, reports, spent = [], [], 0.0
    for walker in range(-(-n_frames // WALKER_FRAMES)):
        mine = min(WALKER_FRAMES, n_frames - walker * WALKER_FRAMES)
        folder = root / f"w{walker}"
        folder.mkdir(parents=True)
        writer = PartWriter(folder)
        frames = synthetic_frames(n_atoms, mine, walker)
        while rows := list(itertools.islice(frames, checkpoint_frames)):
            begun = time.perf_counter()
            for row in rows:
                writer.append(row)
            mine_parts = writer.flush()
            spent += time.perf_counter() - begun
        parts += mine_parts
        reports.append(WalkerReport(walker, f"w{walker}", "s", "s", 300.0, 0, mine, mine, None))
    return Trajectory.from_parts(root, parts, reports), spent


def measure(n_atoms: int, n_frames: int, n_exported: int, checkpoint_frames: int) -> dict[str, Any]:
    """Rates, sizes and memory."""
    frame_bytes = n_atoms * (2 * 12 + 1) + 9 * 8 + 8 * 6
    payload_MB = n_frames * frame_bytes / 1e6
    with tempfile.TemporaryDirectory() as folder:
        trajectory, write_s = write(Path(folder), n_atoms, n_frames, checkpoint_frames)
        written_MiB = _peak_MiB()
        begun = time.perf_counter()
        seen = sum(batch.num_rows for batch in trajectory.iter_batches())
        read_s = time.perf_counter() - begun
        assert seen == trajectory.n_frames == n_frames
        rng = np.random.default_rng(0)
        frame_ids = trajectory.scalars()["frame_id"].to_numpy()
        begun = time.perf_counter()
        for frame_id in rng.choice(frame_ids, 100):
            trajectory.frames([frame_id])
        random_ms = (time.perf_counter() - begun) * 10
        parquet_MB, n_parts = trajectory.n_bytes / 1e6, len(trajectory.parts)
        peak_MiB = _peak_MiB()
        others = {}
        for suffix in (".extxyz", ".traj"):
            file = Path(folder) / f"export{suffix}"
            begun = time.perf_counter()
            trajectory.export(file, frame_ids[:n_exported])
            scale = n_frames / n_exported
            others[suffix] = {
                "frames_written": n_exported,
                "size_MB_extrapolated": file.stat().st_size * scale / 1e6,
                "write_s_extrapolated": (time.perf_counter() - begun) * scale,
            }
    return {
        "frames": n_frames,
        "atoms": n_atoms,
        "payload_MB": payload_MB,
        "parquet_MB": parquet_MB,
        "parts": n_parts,
        "frames_a_checkpoint": checkpoint_frames,
        "write_MB_per_s": payload_MB / write_s,
        "read_MB_per_s": payload_MB / read_s,
        "random_frame_ms": random_ms,
        "peak_rss_writing_MiB": written_MiB,
        "peak_rss_MiB": peak_MiB,
        "others": others,
    }


def _peak_MiB() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--exported", type=int, default=2000)
    parser.add_argument("--checkpoint-frames", type=int, default=50, help="as a campaign's default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure(
        given.atoms, given.frames, min(given.exported, given.frames), given.checkpoint_frames
    )
    print(json.dumps(figures, indent=1))  # noqa: T201
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
