"""SIGKILL while descriptors are computed: the next run computes only the missing parts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.common.progress import Progress
from mlip_assets.descriptors import DescriptorMatrix, compute_descriptors
from mlip_assets.trajectory import Part, Trajectory, frame_table, write_part

SETTINGS = DescriptorSettings(r_cut=3.5, n_max=3, l_max=2)
PART_FRAMES, N_PARTS = 32, 10

#: Program of the child: short parts, with a pause between them in which the test kills it.
CHILD = """\
import sys, time
from pathlib import Path
from upath import UPath
from mlip_assets.descriptors import compute_descriptors, computation
from mlip_assets.trajectory import Trajectory
from tests_of_the_crash import PART_FRAMES, SETTINGS

computation._PART_FRAMES = PART_FRAMES
write_part = computation.write_part
def slowly(*arguments):
    time.sleep(0.15)
    write_part(*arguments)
computation.write_part = slowly
root, target = map(Path, sys.argv[1:])
trajectory = Trajectory.from_json(UPath(root), (root / "trajectory.json").read_text())
compute_descriptors(trajectory, SETTINGS, ["Si", "C"], target, n_threads=2)
"""


@pytest.fixture
def trajectory(tmp_path: Path) -> Trajectory:
    """Blocks of carbide and silicon, in two part files of the frame table."""
    rng = np.random.default_rng(3)
    kinds = [bulk("SiC", "zincblende", a=4.36, cubic=True), bulk("Si", cubic=True)]
    root, parts = tmp_path / "frames", []
    for number in range(2):
        rows = []
        for step in range(PART_FRAMES * N_PARTS // 2 - 5 * number):
            atoms = kinds[(step // 50) % 2]
            positions = atoms.positions + rng.normal(0, 0.1, atoms.positions.shape)
            rows.append(
                {
                    "frame_id": 1000 * number + step,
                    "walker": f"w{number}",
                    "step": step,
                    "time_fs": float(step),
                    "temperature_K": 300.0,
                    "target_temperature_K": 300.0,
                    "pressure_GPa": None,
                    "energy_eV": 0.0,
                    "force_spread_eV_per_A": None,
                    "cell": atoms.cell[:].ravel(),
                    "pbc": atoms.pbc,
                    "numbers": atoms.numbers,
                    "positions": positions.ravel(),
                    "forces": np.zeros(positions.size),
                }
            )
        name = f"part-{number}.parquet"
        write_part(root / name, frame_table(rows))
        parts.append(Part(name, len(rows), rows[0]["frame_id"], rows[-1]["frame_id"]))
    made = Trajectory.from_parts(root, parts, [])
    (root / "trajectory.json").write_text(made.to_json(), encoding="utf-8")
    return made


def parts_in(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.glob("part-*.parquet")
    }


@pytest.mark.slow
def test_compute_descriptors_after_sigkill_gives_same_bytes(
    tmp_path: Path, trajectory: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "matrix"
    (tmp_path / "tests_of_the_crash.py").write_text(Path(__file__).read_text())
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "frames"), str(target)],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while len(parts_in(target)) < N_PARTS // 2:
        assert child.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = parts_in(target)
    assert N_PARTS // 2 <= len(kept) < N_PARTS
    with pytest.raises(FileNotFoundError, match="are incomplete"):
        DescriptorMatrix(target).to_numpy()
    (target / ".writing-left.parquet").write_bytes(b"rest of an interrupted write")

    monkeypatch.setattr("mlip_assets.descriptors.computation._PART_FRAMES", PART_FRAMES)
    progress = Progress("SOAP", trajectory.n_frames, "frames")
    matrix = compute_descriptors(trajectory, SETTINGS, ["Si", "C"], target, progress=progress)
    assert kept.items() <= parts_in(target).items(), "a finished part was written again"
    assert progress.already_done == PART_FRAMES * len(kept)
    matrix.validate()
    ids = [i for batch in trajectory.iter_batches(["frame_id"]) for i in batch[0].to_pylist()]
    assert matrix.to_numpy()[0].tolist() == ids

    uninterrupted = tmp_path / "uninterrupted"
    compute_descriptors(trajectory, SETTINGS, ["Si", "C"], uninterrupted)
    assert {f.name: f.read_bytes() for f in target.iterdir()} == {
        f.name: f.read_bytes() for f in uninterrupted.iterdir()
    }
