"""The pipeline on a small argon cluster: real MACE dynamics, descriptors, exact selection."""

import itertools

import dagster as dg
import numpy as np
import pytest
from ase.io import read

from io_managers.storage import Storage
from mlip_assets.definitions import defs
from resources.campaigns import CampaignFolder

ARGON = """\
name: argon
composition: Ar
seeds: {kinds: [cluster], cluster_atoms: 8}
exploration: {temperatures_K: [20, 60], timestep_fs: 5, n_steps: 300, sample_every: 5}
sampling: {n_samples: 9, n_clusters: 6}
"""


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """Run seeds → selected_frames in one process on a new campaign."""
    folder = tmp_path_factory.mktemp("argon")
    (folder / "argon.yaml").write_text(ARGON)
    storage = Storage(root=str(folder / "data"))
    resources = dict(defs.resources or {})
    for key, value in resources.items():
        if hasattr(value, "storage"):
            resources[key] = type(value)(storage=storage)
    resources.update(storage=storage, campaigns=CampaignFolder(folder=str(folder)))
    assets = [
        asset
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        and asset.group_names_by_key[asset.key] in {"exploration", "selection"}
    ]
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["argon"])

    def run():
        return dg.materialize(assets, resources=resources, partition_key="argon", instance=instance)

    return run(), run, folder / "data" / "argon"


def rmsd(left, right):
    """Least root-mean-square distance after the best rotation and matching by sorted distances."""
    from ase.build import minimize_rotation_and_translation

    moved = right.copy()
    minimize_rotation_and_translation(left, moved)
    return np.sqrt(((left.positions - moved.positions) ** 2).sum(axis=1).mean())


def test_pipeline_assets_and_checks_succeed(explored):
    result, _, _ = explored
    assert result.success
    assert len(result.get_asset_materialization_events()) == 6
    failed = [c.check_name for c in result.get_asset_check_evaluations() if not c.passed]
    assert set(failed) <= {"better_than_random"}  # nine frames of a tiny pool may not beat chance


def test_selected_frames_are_exact_in_number_and_distinct(explored):
    _, _, folder = explored
    frames = read(folder / "selected_frames.extxyz", ":")
    assert len(frames) == 9
    assert len({frame.info["frame_id"] for frame in frames}) == 9
    assert {frame.info["cluster"] for frame in frames} == set(range(6))
    assert min(itertools.starmap(rmsd, itertools.combinations(frames, 2))) > 0.02


def test_selected_clusters_are_not_periodic(explored):
    """Argon at 20 K neither evaporates nor collapses under the surrogate."""
    _, _, folder = explored
    frames = read(folder / "selected_frames.extxyz", ":")
    cold = [frame for frame in frames if frame.info["target_temperature_K"] == 20]
    for frame in cold:
        distances = frame.get_all_distances()
        nearest = np.sort(distances, axis=1)[:, 1]
        assert 2.8 < nearest.min() < 4.5
        assert nearest.max() < 6.5


def test_run_of_the_same_campaign_gives_the_same_frames(explored):
    _, run, folder = explored
    first = (folder / "selected_frames.extxyz").read_bytes()
    result = run()
    assert result.success
    assert (folder / "selected_frames.extxyz").read_bytes() == first


def test_metadata_gives_model_hash_device_and_a_picture(explored):
    result, _, _ = explored
    for name in ("seeds", "surrogate_trajectory"):
        (event,) = result.asset_materializations_for_node(name)
        assert len(event.metadata["surrogate_sha256"].value) == 64
        assert event.metadata["device"].value
    for event in result.get_asset_materialization_events():
        metadata = event.step_materialization_data.materialization.metadata
        assert metadata["picture"].value.startswith("![picture](data:image/png;base64,")
        assert any(type(value).__name__ == "TableMetadataValue" for value in metadata.values())
        assert metadata["wall_s"].value >= 0
        assert metadata["size_bytes"].value > 0
        assert metadata["dagster/partition_row_count"].value > 0
