"""Earlier results: labels of other campaigns and rounds, and the PCA of another campaign."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from ase.io import read

from mlip_assets.assets.seeds import seeds
from mlip_assets.campaign import CampaignError
from mlip_assets.definitions import defs
from mlip_assets.figures import rounded
from mlip_assets.sampling import project_frames
from mlip_assets.trajectory import round_of

pytestmark = pytest.mark.slow

N_SAMPLES = 4


@pytest.fixture(scope="module")
def project(copper_project):
    return copper_project


def test_rerun_selects_the_same_frames(project, copper):
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
def test_refresh_labels_frames_that_earlier_rounds_did_not_cover(project):
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
def test_refresh_selects_only_frames_outside_the_coverage_radius(project):
    campaign = project.write("candidates")
    project.run("candidates")
    project.campaigns.record(campaign, finished=True)
    project.run("candidates", refresh=True)
    earlier = project.earlier.own_labelled_frames(campaign.in_round(1))
    axes = project.earlier.pca(campaign.in_round(1))
    frames = read(project.folder / "data" / "candidates" / "selected_frames.extxyz", ":")
    places, known = (
        project_frames(atoms, axes, campaign.descriptors, campaign.elements)
        for atoms in (frames, earlier)
    )
    within = project.campaigns.rounds("candidates").rounds[0].coverage_radius
    distances = np.linalg.norm(places[:, None] - known, axis=2).min(axis=1)
    assert len(earlier) == N_SAMPLES
    assert (distances > within).all()


@pytest.mark.usefixtures("copper")
def test_exclude_labelled_in_counts_labels_of_another_campaign_in_its_pca(project):
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
def test_unusable_earlier_results_are_reported_before_computation(project):
    beyond = project.write("beyond", "exclude_labelled_in: [copper, silver]")
    with pytest.raises(
        CampaignError,
        match=r"beyond.yaml: sampling.exclude_labelled_in: campaign 'silver' has no labels .*mlip run silver",
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
    missing = project.write("missing", "pca_from: silver")
    with pytest.raises(
        CampaignError, match=r"missing.yaml: sampling.pca_from: campaign 'silver' has no embedding"
    ):
        project.earlier.check(missing)
    wider = project.write("wider", "pca_from: copper", r_cut=4.5)
    with pytest.raises(
        CampaignError, match=r"descriptors with r_cut = 3.5, this campaign with r_cut = 4.5"
    ):
        project.earlier.check(wider)
    project.earlier.check(project.write("new", "pca_from: new"))


def test_refresh_before_the_end_of_the_first_run_is_an_error(project):
    fresh = project.write("fresh")
    with pytest.raises(CampaignError, match=r"first run is not finished.*mlip run fresh"):
        project.campaigns.coverage_radius(fresh)


def test_map_page_is_stored_with_the_selected_frames(tmp_path, new_project):
    project = new_project(tmp_path, root="memory://beyond")
    project.write("copper")
    made = project.run(
        "copper", only=dg.AssetSelection.all() - dg.AssetSelection.assets("labelled_db")
    )
    page = project.storage.folder("copper") / "selected_frames.html"
    assert made["selected_frames"]["map_page"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (page.parent / "selected_frames.extxyz").exists()
