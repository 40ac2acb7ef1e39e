"""Exploration as an asset: seen while it runs, and by the engine that suits it."""

import dagster as dg
import pytest
from ase.build import bulk

from io_managers.parquet import TrajectoryIOManager
from io_managers.storage import Storage
from mlip_assets.assets import contract
from mlip_assets.assets.surrogate_trajectory import surrogate_trajectory
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.surrogate import SurrogateResource

SILICON = """\
name: silicon
composition: Si
exploration: {n_steps: 20, sample_every: 5, temperatures_K: [300, 600], replicas: 2}
sampling: {n_samples: 3}
"""


@pytest.fixture
def materialize(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "EVENT_EVERY_S", 0.0)
    (tmp_path / "silicon.yaml").write_text(SILICON, encoding="utf-8")
    storage = Storage(root=str(tmp_path / "data"))
    atoms = bulk("Si", cubic=True)
    atoms.info.update(seed_name="crystal", seed_kind="crystal")

    @dg.asset(partitions_def=contract.campaign_partitions)
    def seeds():
        return [atoms]

    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["silicon"])

    def run():
        return dg.materialize(
            [seeds, surrogate_trajectory],
            partition_key="silicon",
            instance=instance,
            resources={
                "io_manager": dg.mem_io_manager,
                "trajectory": TrajectoryIOManager(storage=storage),
                "storage": storage,
                "campaigns": CampaignFolder(folder=str(tmp_path)),
                "compute": ComputeResource(n_workers=1),
                "surrogate": SurrogateResource(),
            },
        )

    return run


def test_surrogate_trajectory_steps_are_observed(materialize):
    pytest.importorskip("torch_sim")
    result = materialize()
    seen = _observed(result)
    done = [observation.metadata["steps_done"].value for observation in seen]
    assert len(done) > 4
    assert done == sorted(done)
    assert done[-1] == seen[-1].metadata["steps_total"].value == 80
    assert "exploration: 80/80 steps (100 %)" in seen[-1].description
    (event,) = result.asset_materializations_for_node("surrogate_trajectory")
    assert event.metadata["md_backend"].value == "torchsim"  # four walkers of eight atoms
    assert event.metadata["atom_steps_per_s_per_worker"].value > 0
    again = _observed(materialize())
    assert {observation.metadata["steps_done"].value for observation in again} <= {80}


def _observed(result):
    return [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
