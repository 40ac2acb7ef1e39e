"""Typed IO managers: what goes in comes out, and what does not belong is refused by name."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from upath import UPath

from io_managers.extxyz import ExtxyzIOManager
from io_managers.label_database import LabelDatabaseIOManager
from io_managers.parquet import (
    ClustersIOManager,
    DescriptorIOManager,
    EmbeddingIOManager,
    TrajectoryIOManager,
)
from io_managers.storage import Storage
from mlip_assets.campaign import Campaign
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.labelling import LabelledDatabase
from mlip_assets.sampling import Clusters, embed, fit_embedding

KEY = dg.AssetKey("value")


def through(manager, value, root, contract=None):
    """Store a value and load it back, as two steps of a run would."""
    made = manager(storage=Storage(root=str(root)))
    stored = dg.build_output_context(
        asset_key=KEY, partition_key="silicon", definition_metadata=contract or {}
    )
    made.handle_output(stored, value)
    loaded = dg.build_input_context(asset_key=KEY, partition_key="silicon", upstream_output=stored)
    return made.load_input(loaded)


def embedding(n=30):
    rng = np.random.default_rng(1)
    return fit_embedding(rng.normal(size=(n, 6)), components="fixed", n_components=3)


def trajectory(root):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(seed_name="crystal", seed_kind="crystal")
    campaign = Campaign(
        name="cu", composition="Cu", exploration={"n_steps": 20}, sampling={"n_samples": 1}
    )
    return run_walkers(plan_walkers(campaign, [atoms], "0" * 64), EMT, root)


@pytest.mark.parametrize("root", ["local", "memory"])
def test_extxyz_io_manager_round_trip(root, tmp_path):
    where = tmp_path if root == "local" else "memory://structures"
    atoms = bulk("Cu", cubic=True)
    atoms.info["frame_id"] = 3_000_000_120
    (back,) = through(ExtxyzIOManager, [atoms], where, {"required_info": ["frame_id"]})
    assert back.info["frame_id"] == 3_000_000_120
    assert np.array_equal(back.positions, atoms.positions)
    assert back.pbc.all()


@pytest.mark.parametrize("root", ["local", "memory"])
def test_embedding_io_manager_round_trip_with_its_components(root, tmp_path):
    value = embedding()
    back = through(EmbeddingIOManager, value, tmp_path if root == "local" else "memory://pca")
    assert np.array_equal(value.frame_id, back.frame_id)
    assert np.array_equal(value.scores, back.scores)
    for name in vars(value.pca):
        assert np.array_equal(getattr(value.pca, name), getattr(back.pca, name)), name
    rows = np.random.default_rng(2).normal(size=(4, 6))
    assert np.array_equal(embed(rows, value.pca).scores, embed(rows, back.pca).scores)


def test_clusters_io_manager_round_trip(tmp_path):
    value = Clusters(
        np.arange(5, dtype=np.int64),
        np.array([0, 0, 1, 1, 2]),
        np.linspace(0, 1, 5),
        np.zeros((3, 2)),
        np.array([1.0, 0.3]),
    )
    back = through(ClustersIOManager, value, tmp_path)
    assert all(np.array_equal(getattr(value, name), getattr(back, name)) for name in vars(value))


def test_trajectory_io_manager_gives_a_handle_defined_by_the_manifest(tmp_path):
    folder = tmp_path / "silicon" / "value"
    value = trajectory(folder)
    back = through(TrajectoryIOManager, value, tmp_path)
    assert back == value
    (folder / "stray.parquet").write_bytes(b"half written")
    assert back.scalars().num_rows == value.n_frames


@pytest.mark.parametrize("root", ["local", "memory"])
def test_label_database_io_manager_round_trip(root, tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(frame_id=np.int64(7), REF_energy=-1.5, REF_stress=np.eye(3), label_key="k")
    atoms.set_array("REF_forces", np.ones((4, 3)))
    value = LabelledDatabase([atoms], [], [], [3], 1, 0, 2.5, "hash")
    where = tmp_path if root == "local" else "memory://labels"
    back = through(LabelDatabaseIOManager, value, where)
    assert back.deferred == [3]
    assert back.labelled[0].info["frame_id"] == 7
    assert np.array_equal(back.labelled[0].arrays["REF_forces"], np.ones((4, 3)))


def test_folder_io_manager_ignores_a_folder_without_its_commit_file(tmp_path):
    manager = LabelDatabaseIOManager(storage=Storage(root=str(tmp_path)))
    (tmp_path / "labels.extxyz").write_text("")
    with pytest.raises(FileNotFoundError, match=r"has no labels\.db"):
        manager.read(UPath(tmp_path))


def test_parquet_io_manager_names_a_wrong_column(tmp_path):
    folder = tmp_path / "silicon" / "value"
    value = trajectory(folder)
    part = folder / value.parts[0].path
    table = pq.read_table(part)
    pq.write_table(
        table.rename_columns(["wrong" if n == "energy_eV" else n for n in table.column_names]), part
    )
    with pytest.raises(ValueError, match="'energy_eV' is missing"):
        through(TrajectoryIOManager, value, tmp_path)


def test_io_manager_names_a_wrong_type(tmp_path):
    with pytest.raises(TypeError, match="must be a Embedding, got list"):
        through(EmbeddingIOManager, [1, 2], tmp_path)
    with pytest.raises(TypeError, match="must be a DescriptorMatrix, got Table"):
        through(DescriptorIOManager, pa.table({"x": [1]}), tmp_path)
    with pytest.raises(TypeError, match="structure 1 is a str"):
        through(ExtxyzIOManager, [bulk("Cu"), "Cu"], tmp_path)


def test_extxyz_io_manager_names_missing_info_and_writes_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"info\['seed_name'\] is missing"):
        through(ExtxyzIOManager, [bulk("Cu")], tmp_path, {"required_info": ["seed_name"]})
    assert not list(tmp_path.rglob("*.*"))


def test_io_manager_error_of_a_missing_value_gives_a_fix(tmp_path):
    manager = ExtxyzIOManager(storage=Storage(root=str(tmp_path)))
    stored = dg.build_output_context(asset_key=KEY, partition_key="silicon")
    loaded = dg.build_input_context(asset_key=KEY, partition_key="silicon", upstream_output=stored)
    with pytest.raises(FileNotFoundError, match="materialize it first"):
        manager.load_input(loaded)


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/b", "", ".."])
def test_storage_refuses_partition_keys_outside_the_root(key, tmp_path):
    with pytest.raises(ValueError, match="not a campaign name"):
        Storage(root=str(tmp_path)).folder(key)


def test_storage_at_a_remote_root_has_no_working_folder():
    assert isinstance(Storage(root="memory://x").folder("silicon"), UPath)
    with pytest.raises(ValueError, match="needs a local"):
        Storage(root="memory://x").working_folder("silicon", "model_training")
