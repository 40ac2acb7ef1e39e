"""The frame table on disk: random access, export, growing part-files, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.io import read

from mlip_assets.dynamics import run_walkers
from mlip_assets.trajectory import SCALAR_COLUMNS, PartWriter, Trajectory, writer
from tests.dynamics.oscillators import Harmonic, columns, same, walkers

HERE = Path(__file__).parents[1] / "dynamics"


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectory")
    return run_walkers(walkers(n_steps=1200), Harmonic, folder)


def test_frames_are_returned_in_the_given_order(trajectory):
    ids = [1_000_000_600, 3, 1200, 3]
    frames = trajectory.frames(ids)
    assert [atoms.info["frame_id"] for atoms in frames] == ids
    everything = {atoms.info["frame_id"]: atoms for atoms in trajectory.iter_frames()}
    assert len(everything) == trajectory.n_frames == 800
    assert all(everything[i] == atoms for i, atoms in zip(ids, frames, strict=True))


@pytest.mark.parametrize("frame_id", [1, 4, 1201, 999_999_999, 5_000_000_000])
def test_frames_names_a_missing_frame_id(trajectory, frame_id):
    with pytest.raises(KeyError, match=str(frame_id)):
        trajectory.frames([3, frame_id])


def test_frames_reads_one_row_group_for_one_frame(trajectory, monkeypatch):
    groups = []
    read_group = pq.ParquetFile.read_row_group

    def spy(file, number, **options):
        groups.append(number)
        return read_group(file, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    trajectory.frames([1_000_000_600])
    assert groups == [1]  # frames 101 to 200 of the second walker


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
def test_export_keeps_positions_energies_and_forces(trajectory, tmp_path, suffix):
    ids = [1_000_000_600, 3, 1200]
    assert trajectory.export(tmp_path / f"some{suffix}", ids) == 3
    exported = read(tmp_path / f"some{suffix}", ":")
    rows = {r["frame_id"]: r for b in trajectory.iter_batches() for r in b.to_pylist()}
    for frame_id, atoms in zip(sorted(ids), exported, strict=True):
        row = rows[frame_id]
        assert np.allclose(atoms.positions, np.reshape(row["positions"], (-1, 3)), atol=1e-7)
        assert np.allclose(atoms.get_forces(), np.reshape(row["forces"], (-1, 3)), atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(row["energy_eV"], abs=1e-7)
        assert atoms.pbc.all()
    with pytest.raises(ValueError, match=r"supports .extxyz and .traj"):
        trajectory.export(tmp_path / "some.cif")


def test_trajectory_json_round_trip(trajectory):
    restored = Trajectory.from_json(trajectory.root, trajectory.to_json())
    assert restored == trajectory


def test_part_writer_appends_until_part_is_full(tmp_path, monkeypatch):
    """Many checkpoints give few files; cut at any frame and extended, the rows are the same."""
    monkeypatch.setattr(writer, "PART_FRAMES", 40)
    given = {"temperatures_K": [300], "checkpoint_every": 25}
    whole = run_walkers(walkers(**given, n_steps=300), Harmonic, tmp_path)
    assert [part.n_frames for part in whole.parts] == [40, 40, 20]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert len(list(folder.glob("part-*.parquet"))) == 3
    rows = [row for batch in whole.iter_batches() for row in batch.to_pylist()]
    (tmp_path / "again").mkdir()
    parts = ()
    for begin, end in ((0, 30), (30, 30), (30, 75), (75, 100)):
        part_writer = PartWriter(tmp_path / "again", parts)
        for row in rows[begin:end]:
            part_writer.append(
                {key: np.array(v) if isinstance(v, list) else v for key, v in row.items()}
            )
        parts = part_writer.flush()
    again = Trajectory.from_parts(tmp_path, parts, whole.walkers)
    assert same(columns(whole), columns(again))


FILL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from oscillators import Harmonic, walkers
from mlip_assets.dynamics import run_walkers
if sys.argv[3] != "tmpfs":  # maximum file size, as under a quota
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    run_walkers(walkers(n_steps=1500, temperatures_K=[300]), Harmonic, Path(sys.argv[2]))
except OSError as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("only root may mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder, limit):
    command = [sys.executable, "-c", FILL, str(HERE), str(folder), limit]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])


def assert_recoverable(outcome, folder, tmp_path):
    """The error gives the remedy, no temporary file remains, and a second run completes the frames."""
    assert outcome.returncode == 3, outcome.stderr
    assert "make room at" in outcome.stdout
    assert "what was recorded before is safe" in outcome.stdout
    assert not list(folder.rglob(".writing-*"))
    given = {"n_steps": 1500, "temperatures_K": [300]}
    unbroken = run_walkers(walkers(**given), Harmonic, tmp_path / "unbroken")
    calculator = Harmonic()
    resumed = run_walkers(walkers(**given), lambda: calculator, folder)
    assert same(columns(unbroken), columns(resumed))
    assert calculator.calls < 1500, "recorded frames were computed again"


@pytest.mark.slow
def test_walker_recovers_from_exceeded_quota(tmp_path):
    assert_recoverable(fill(tmp_path / "quota", "60000"), tmp_path / "quota", tmp_path)


@pytest.mark.slow
def test_walker_recovers_from_full_disk(tmp_path, small_disk):
    outcome = fill(small_disk, "tmpfs")
    assert "No space left" in outcome.stdout
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert_recoverable(outcome, small_disk, tmp_path)
    assert os.statvfs(small_disk).f_bavail > 0


def test_to_dataframe_has_scalars_and_units(trajectory):
    table = trajectory.to_dataframe()
    assert table.columns.tolist() == list(SCALAR_COLUMNS)
    scalars = trajectory.scalars()
    for name in SCALAR_COLUMNS:
        expected = scalars[name].to_pandas()
        assert table[name].equals(expected), name


def test_to_dataframe_returns_rows_in_the_given_order(trajectory):
    ids = [1_000_000_600, 3, 1200, 3]
    table = trajectory.to_dataframe(["frame_id", "energy_eV"], ids)
    assert table["frame_id"].tolist() == ids
    assert np.array_equal(table["energy_eV"], trajectory.column("energy_eV", np.array(ids)))
    every_tenth = trajectory.to_dataframe(["frame_id"], slice(None, None, 10))["frame_id"]
    assert every_tenth.tolist() == trajectory.scalars()["frame_id"].to_pylist()[::10]
    assert trajectory.to_dataframe(frame_ids=slice(0, 0)).empty


def test_to_dataframe_shapes_atoms_and_cells(trajectory):
    names = ["cell", "pbc", "numbers", "positions", "forces"]
    table = trajectory.to_dataframe(names, [3, 600])
    assert table.columns.tolist() == ["cell_A", "pbc", "numbers", "positions_A", "forces_eV_per_A"]
    for (_, row), atoms in zip(
        table.iterrows(), trajectory.iter_frames([3, 600], with_results=True), strict=True
    ):
        assert np.array_equal(row["cell_A"], atoms.cell.array)
        assert np.array_equal(row["pbc"], atoms.pbc)
        assert np.array_equal(row["numbers"], atoms.numbers)
        assert np.array_equal(row["positions_A"], atoms.positions)
        assert np.array_equal(row["forces_eV_per_A"], atoms.get_forces())


def test_to_dataframe_names_missing_column_and_frame_id(trajectory):
    with pytest.raises(KeyError, match="charge"):
        trajectory.to_dataframe(["energy_eV", "charge"])
    with pytest.raises(KeyError, match="4"):
        trajectory.to_dataframe(frame_ids=[3, 4])
