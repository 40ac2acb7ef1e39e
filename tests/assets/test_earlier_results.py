"""A selection that goes beyond what is labelled, and maps on the axes of another campaign."""

import os
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

from io_managers.storage import Storage
from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.assets.seeds import seeds
from mlip_assets.campaign import CampaignError
from mlip_assets.definitions import defs
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.figures import rounded
from mlip_assets.sampling import project_frames
from mlip_assets.trajectory import round_of
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


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """``write`` a campaign of copper, ``run`` it from its frames to its labels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(TOY_ENGINE))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOY_ENGINE), *sys.path]))
        yield Project(tmp_path_factory.mktemp("beyond"))


@pytest.fixture(scope="module")
def copper(project):
    """What the first run of a campaign without any of the keys has made."""
    project.write("copper")
    return project.run("copper")


class Project:
    """Campaigns of one ledger, on frames that are the same for all."""

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
        """Metadata by asset."""

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
        result = dg.materialize(
            [surrogate_trajectory, *assets],
            resources=resources,
            partition_key=name,
            instance=self.instance,
            selection=only,
            tags={REFRESH_TAG: "true"} if refresh else None,
        )
        failed = [c.check_name for c in result.get_asset_check_evaluations() if not c.passed]
        assert set(failed) <= {"better_than_random"}  # of so few frames
        made = {}
        for event in result.get_asset_materialization_events():
            found = event.step_materialization_data.materialization
            made[found.asset_key.path[-1]] = {k: v.value for k, v in found.metadata.items()}
        return made

    def selected(self, name):
        frames = read(self.folder / "data" / name / "selected_frames.extxyz", ":")
        return {atoms.info["frame_id"] for atoms in frames}

    def n_calls(self):
        return len(self.calls.read_text().splitlines())


def test_without_the_key_a_campaign_chooses_the_same_again(project, copper):
    first = project.selected("copper")
    assert copper["selected_frames"]["n_known_frames"] == 0
    page = Path(copper["selected_frames"]["map_page"])
    assert page == project.folder / "data" / "copper" / "selected_frames.html"
    assert page.stat().st_size > 3_000_000
    calls = project.n_calls()
    made = project.run("copper")
    assert project.selected("copper") == first
    assert made["labelled_db"]["n_labelled"] == N_SAMPLES
    assert project.n_calls() == calls


@pytest.mark.usefixtures("copper")
def test_a_refresh_labels_what_the_rounds_before_left_out(project):
    campaign = project.write("onward", more="refresh: {n_samples: 3}")
    made = project.run("onward")
    assert made["labelled_db"]["dft_calls_made"] == 0  # the first are copper's
    chosen, labelled = project.selected("onward"), N_SAMPLES
    (first,) = project.campaigns.rounds("onward").rounds
    assert first.coverage_radius > 0
    for number in (1, 2):
        project.campaigns.record(campaign.in_round(number - 1), finished=True)
        made = project.run("onward", refresh=True)
        now = project.selected("onward")
        assert {round_of(frame) for frame in now} == {number}
        assert 1 <= len(now) <= 3
        assert made["pca_embedding"]["pca_from"] == "onward"
        fraction = made["clusters"]["covered_fraction"]
        recorded = project.campaigns.rounds("onward").rounds[number].covered_fraction
        assert fraction == rounded(recorded)
        assert 0 < fraction < 1
        assert made["clusters"]["n_known_frames"] == labelled
        assert made["labelled_db"]["n_kept_of_earlier_runs"] == labelled
        labelled += len(now)
        assert made["labelled_db"]["n_labelled"] == labelled
        assert made["labelled_db"]["dft_calls_made"] == len(now)
        chosen |= now
    assert len(chosen) == labelled

    calls = (
        project.n_calls()
    )  # the round again, whether by the run that was killed in it or by hand
    for refresh in (True, False):
        again = project.run("onward", refresh=refresh)
        assert project.selected("onward") == now
        assert again["labelled_db"]["n_labelled"] == labelled
        assert again["clusters"]["covered_fraction"] == fraction
    assert project.n_calls() == calls


@pytest.mark.usefixtures("copper")
def test_only_what_lies_beyond_the_labels_is_chosen(project):
    campaign = project.write("frontier")
    project.run("frontier")
    project.campaigns.record(campaign, finished=True)
    project.run("frontier", refresh=True)
    earlier = project.earlier.own_labelled_frames(campaign.in_round(1))
    axes = project.earlier.pca(campaign.in_round(1))
    frames = read(project.folder / "data" / "frontier" / "selected_frames.extxyz", ":")
    places, known = (
        project_frames(atoms, axes, campaign.descriptors, campaign.elements)
        for atoms in (frames, earlier)
    )
    within = project.campaigns.rounds("frontier").rounds[0].coverage_radius
    distances = np.linalg.norm(places[:, None] - known, axis=2).min(axis=1)
    assert len(earlier) == N_SAMPLES
    assert (distances > within).all()


@pytest.mark.usefixtures("copper")
def test_another_campaigns_labels_count_as_taken_on_its_own_axes(project):
    beyond = project.write("beyond", "exclude_labelled_in: [copper], pca_from: copper")
    made = project.run("beyond")
    assert made["selected_frames"]["n_known_frames"] == N_SAMPLES
    assert made["selected_frames"]["clusters_new"] == N_SAMPLES
    assert not project.selected("beyond") & project.selected("copper")
    assert made["labelled_db"]["n_labelled"] == N_SAMPLES
    assert made["pca_embedding"]["pca_from"] == "copper"
    theirs, ours = (
        np.load(project.folder / "data" / n / "pca_embedding.npz") for n in ("copper", "beyond")
    )
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs.files)
    assert project.earlier.pca(beyond) is not None


@pytest.mark.usefixtures("copper")
def test_what_cannot_be_used_is_told_before_anything_is_computed(project):
    beyond = project.write("beyond", "exclude_labelled_in: [copper, silver]")
    with pytest.raises(
        CampaignError,
        match=r"beyond.yaml: sampling.exclude_labelled_in: campaign 'silver' has no labels .*make run CAMPAIGN=silver",
    ):
        project.earlier.check(beyond)
    with pytest.raises(dg.Failure, match="campaign 'silver' has no labels"):
        dg.materialize(
            [seeds],
            resources={
                **defs.resources,
                "campaigns": project.campaigns,
                "earlier": project.earlier,
            },
            partition_key="beyond",
            instance=project.instance,
        )
    aluminium = project.write("aluminium", "exclude_labelled_in: [copper]", composition="Al")
    with pytest.raises(CampaignError, match="contains Cu, which the composition Al lacks"):
        project.earlier.check(aluminium)
    nowhere = project.write("nowhere", "pca_from: silver")
    with pytest.raises(
        CampaignError, match=r"nowhere.yaml: sampling.pca_from: campaign 'silver' has no embedding"
    ):
        project.earlier.check(nowhere)
    wider = project.write("wider", "pca_from: copper", r_cut=4.5)
    with pytest.raises(
        CampaignError, match=r"descriptors with r_cut = 3.5, this campaign with r_cut = 4.5"
    ):
        project.earlier.check(wider)
    project.earlier.check(project.write("new", "pca_from: new"))


def test_a_refresh_before_the_first_run_has_ended_is_told(project):
    fresh = project.write("fresh")
    with pytest.raises(CampaignError, match=r"first run is not finished.*make run CAMPAIGN=fresh"):
        project.campaigns.coverage_radius(fresh)


def test_the_page_goes_where_the_frames_go(tmp_path):
    project = Project(tmp_path, root="memory://beyond")
    project.write("copper")
    made = project.run(
        "copper", only=dg.AssetSelection.all() - dg.AssetSelection.assets("labelled_db")
    )
    page = project.storage.folder("copper") / "selected_frames.html"
    assert made["selected_frames"]["map_page"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (page.parent / "selected_frames.extxyz").exists()
