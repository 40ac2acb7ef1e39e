"""Campaigns of copper with a toy DFT engine, shared by the tests of the assets."""

import os
import sys
from pathlib import Path

import dagster as dg
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

from io_managers.storage import Storage
from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.definitions import defs
from mlip_assets.dynamics import plan_walkers, run_walkers
from resources.campaigns import REFRESH_TAG, CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.earlier import EarlierResults

TOY_ENGINE = Path(__file__).parents[1] / "labelling"
N_SAMPLES = 4
COPPER = """\
name: {name}
composition: {composition}
exploration: {{n_steps: 80, sample_every: 2}}
descriptors: {{r_cut: {r_cut}, n_max: 3, l_max: 2}}
sampling: {{n_samples: 4, {sampling}}}
{more}
"""


class ToyDft(DftResource):
    """Effective-medium theory through the real ledger and its child processes."""

    calls_file: str

    def engine(self, settings, elements):
        from toy_engine import ToyEngine

        return ToyEngine(calls_file=self.calls_file)


@pytest.fixture(scope="session")
def new_project():
    """``new_project(folder, root)``: a project without campaigns."""
    return Project


@pytest.fixture(scope="module")
def copper_project(tmp_path_factory):
    """Copper campaigns: ``write`` one, ``run`` it from its frames to its labels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(TOY_ENGINE))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOY_ENGINE), *sys.path]))
        yield Project(tmp_path_factory.mktemp("copper"))


@pytest.fixture(scope="module")
def copper(copper_project):
    """Metadata of the first run of a campaign with default settings."""
    copper_project.write("copper")
    return copper_project.run("copper")


class Project:
    """Campaigns of one ledger, all with the same frames."""

    def __init__(self, folder, root=None):
        self.folder, self.calls = folder, folder / "calls.txt"
        self.storage = Storage(root=root or str(folder / "data"))
        self.campaigns = CampaignFolder(folder=str(folder), data=self.storage.root)
        self.earlier = EarlierResults(storage=self.storage)
        self.instance = dg.DagsterInstance.ephemeral()

    def write(self, name, sampling="", composition="Cu", r_cut=3.5, more=""):
        text = COPPER.format(
            name=name, composition=composition, r_cut=r_cut, sampling=sampling, more=more
        )
        (self.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        self.instance.add_dynamic_partitions("campaign", [name])
        return self.campaigns.load(name)

    def run(self, name, only=None, *, refresh=False):
        """Metadata by asset, of a run that succeeds."""
        result = self.materialize(name, only, refresh=refresh)
        assert result.success
        failed = [c.check_name for c in result.get_asset_check_evaluations() if not c.passed]
        assert set(failed) <= {"better_than_random"}  # of so few frames
        made = {}
        for event in result.get_asset_materialization_events():
            found = event.step_materialization_data.materialization
            made[found.asset_key.path[-1]] = {k: v.value for k, v in found.metadata.items()}
        return made

    def materialize(self, name, only=None, *, refresh=False):
        """The result of a run, which may have failed."""

        @dg.asset(partitions_def=campaign_partitions)
        def surrogate_trajectory(context: dg.AssetExecutionContext):
            atoms = bulk("Cu", cubic=True)
            atoms.info.update(seed_name="crystal", seed_kind="crystal")
            walkers = plan_walkers(self.campaigns.begin_or_resume_round(context), [atoms], "0" * 64)
            return run_walkers(walkers, EMT, self.folder / "frames")

        resources = {
            **{
                k: type(v)(storage=self.storage)
                for k, v in defs.resources.items()
                if hasattr(v, "storage")
            },
            "storage": self.storage,
            "campaigns": self.campaigns,
            "compute": ComputeResource(n_workers=2),
            "dft": ToyDft(
                ledger_path=str(self.folder / "ledger" / "labels.db"), calls_file=str(self.calls)
            ),
            "io_manager": dg.mem_io_manager,
        }
        names = {"descriptor_matrix", "pca_embedding", "clusters", "selected_frames", "labelled_db"}
        assets = [a for a in defs.assets if a.key.path[-1] in names]
        return dg.materialize(
            [surrogate_trajectory, *assets],
            resources=resources,
            partition_key=name,
            instance=self.instance,
            selection=only,
            tags={REFRESH_TAG: "true"} if refresh else None,
            raise_on_error=False,
        )

    def selected(self, name):
        frames = read(self.folder / "data" / name / "selected_frames.extxyz", ":")
        return {atoms.info["frame_id"] for atoms in frames}

    def n_calls(self):
        return len(self.calls.read_text().splitlines())
