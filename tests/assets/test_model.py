"""Metadata and observations of a training: epochs during the run, and the result."""

import base64

import dagster as dg
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from io_managers.model import ModelIOManager
from io_managers.storage import Storage
from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.assets.model import model
from mlip_assets.labelling import LabelledDatabase
from resources.campaigns import CampaignFolder
from resources.mace import MaceResource

CAMPAIGN = """\
name: copper
composition: Cu
training: {fine_tuning: multihead, replay: world.xyz, max_epochs: 4, patience: 3, committee: 1}
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Fine-tuned with replay, as a run of Dagster does it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "copper.yaml").write_text(CAMPAIGN)
    write(folder / "world.xyz", [bulk("Si", a=a) for a in (5.3, 5.4, 5.5, 5.6)])

    @dg.asset(partitions_def=campaign_partitions)
    def labelled_db():
        return labels()

    storage = Storage(root=str(folder / "data"))
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["copper"])
    return dg.materialize(
        [labelled_db, model],
        resources={
            "storage": storage,
            "campaigns": CampaignFolder(folder=str(folder)),
            "mace": MaceResource(),
            "model": ModelIOManager(storage=storage),
            "io_manager": dg.mem_io_manager,
        },
        partition_key="copper",
        instance=instance,
    )


def labels() -> LabelledDatabase:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
        frames.append(labelled(atoms, frame_id=1000 * i, walker=f"w{i}"))
    return LabelledDatabase(frames, [labelled(Atoms("Cu"))], [], [], 13, 0, 1.0, "toy")


def labelled(atoms: Atoms, **info) -> Atoms:
    atoms.calc = EMT()
    atoms.info.update(info, seed_kind="crystal", REF_energy=float(atoms.get_potential_energy()))
    atoms.arrays["REF_forces"] = atoms.get_forces()
    atoms.calc = None
    return atoms


def test_model_epochs_are_observed_with_their_losses(result):
    seen = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
    observed = seen[-1].metadata
    assert observed["epochs_done"].value == observed["epochs_total"].value == 4
    for name in ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A"):
        assert observed[name].value > 0
    assert "training: 4/4 epochs (100 %), loss " in seen[-1].description


def test_model_metadata_give_settings_and_errors_of_the_training(result):
    (event,) = result.asset_materializations_for_node("model")
    observed = {name: value.value for name, value in event.metadata.items()}
    assert (observed["epochs"], observed["stopped_early"]) == (4, False)
    assert (observed["batch_size"], observed["n_replayed"]) == (3, 4)
    picture = observed["curve"].partition("base64,")[2].rstrip(")")
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert result.output_for_node("model").elements == ("Si", "Cu")
