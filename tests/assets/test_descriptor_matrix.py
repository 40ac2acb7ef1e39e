"""Descriptors as an asset: progress as events while it works, and no frame described twice."""

import dagster as dg
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from io_managers.parquet import DescriptorIOManager
from io_managers.storage import Storage
from mlip_assets.assets import contract
from mlip_assets.assets import descriptor_matrix as module
from mlip_assets.descriptors import DescriptorMatrix, computation
from mlip_assets.dynamics import plan_walkers, run_walkers
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource

KEY = dg.AssetKey("descriptor_matrix")
COPPER = """\
name: copper
composition: Cu
exploration: {n_steps: 60, sample_every: 2}
descriptors: {r_cut: 3.5, n_max: 3, l_max: 2}
sampling: {n_samples: 3}
"""


@pytest.fixture
def materialize(tmp_path, monkeypatch):
    """Describe 60 frames of copper in parts of 16; gives the result and the instance."""
    monkeypatch.setattr(computation, "_PART_FRAMES", 16)
    monkeypatch.setattr(contract, "EVENT_EVERY_S", 0.0)
    (tmp_path / "copper.yaml").write_text(COPPER, encoding="utf-8")
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(seed_name="crystal", seed_kind="crystal")
    storage = Storage(root=str(tmp_path / "data"))
    campaigns = CampaignFolder(folder=str(tmp_path))
    walkers = plan_walkers(campaigns.load("copper"), [atoms], "0" * 64)
    frames = run_walkers(walkers, EMT, tmp_path / "frames")

    @dg.asset(name="surrogate_trajectory", partitions_def=module.descriptor_matrix.partitions_def)
    def upstream():
        return frames

    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["copper"])

    def run():
        return dg.materialize(
            [upstream, module.descriptor_matrix],
            partition_key="copper",
            instance=instance,
            resources={
                "io_manager": dg.mem_io_manager,
                "descriptors": DescriptorIOManager(storage=storage),
                "storage": storage,
                "campaigns": campaigns,
                "compute": ComputeResource(n_workers=2),
            },
        )

    return run, instance, tmp_path / "data" / "copper" / "descriptor_matrix"


def observations(instance):
    """What was observed, first to last: metadata and time."""
    records = instance.fetch_observations(KEY, limit=100, ascending=True).records
    return [
        (
            {k: v.value for k, v in record.event_log_entry.asset_observation.metadata.items()},
            record.timestamp,
        )
        for record in records
    ]


def test_descriptor_matrix_progress_is_observed(materialize):
    run, instance, _ = materialize
    result = run()
    assert result.success
    (event,) = result.asset_materializations_for_node("descriptor_matrix")
    (record,) = instance.fetch_materializations(KEY, limit=1).records
    observed = observations(instance)
    assert [figures["frames_done"] for figures, _ in observed] == [16, 32, 48, 60]
    assert all(when < record.timestamp for _, when in observed)
    assert all(figures["frames_total"] == 60 for figures, _ in observed)
    assert all(figures["frames_per_s"] > 0 for figures, _ in observed)
    assert observed[0][0]["eta_s"] >= observed[-1][0]["eta_s"] == 0
    assert {o.partition for o in _observed(result)} == {"copper"}
    assert event.metadata["n_threads"].value == 2
    assert event.metadata["frames_per_s"].value > 0
    assert event.metadata["n_frames_resumed"].value == 0


def test_descriptor_matrix_is_not_computed_twice(materialize):
    run, _, folder = materialize
    assert run().success
    written = {f.name: f.stat().st_mtime_ns for f in folder.glob("*.parquet")}
    assert len(written) == 4
    manifest = folder / "_manifest.json"
    manifest.unlink()  # as after a kill between the last part and the manifest
    (last,) = folder.glob("part-00003-*")
    last.unlink()
    del written[last.name]
    result = run()
    (event,) = result.asset_materializations_for_node("descriptor_matrix")
    assert event.metadata["n_frames_resumed"].value == 48
    assert event.metadata["dagster/partition_row_count"].value == 60
    assert written.items() <= {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}.items()
    assert np.isfinite(DescriptorMatrix(folder).to_numpy()[1]).all()


def test_descriptor_matrix_of_an_unfinished_folder_is_not_loaded(materialize, tmp_path):
    run, _, folder = materialize
    run()
    (folder / "_manifest.json").unlink()
    manager = DescriptorIOManager(storage=Storage(root=str(tmp_path / "data")))
    stored = dg.build_output_context(asset_key=KEY, partition_key="copper")
    loaded = dg.build_input_context(asset_key=KEY, partition_key="copper", upstream_output=stored)
    with pytest.raises(FileNotFoundError, match="incomplete; compute them again"):
        manager.load_input(loaded)
    with pytest.raises(FileNotFoundError, match="incomplete"):
        manager.handle_output(stored, DescriptorMatrix(folder))


def _observed(result):
    return [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
