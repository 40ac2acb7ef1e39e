"""The UI in a real browser: a campaign is launched by clicks, and its results are read.

One server and one finished campaign serve all tests.
"""

from __future__ import annotations

import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from mlip_assets.assets import LINEAGE_PATH

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

#: Every asset and the checks it must pass. Checks that compare with random selections or with a
#: mean are omitted: with eight frames their result is random.
CHECKS = {
    "seeds": ("complete", "physical"),
    "surrogate_trajectory": ("frames_physical", "walkers_finished"),
    "descriptor_matrix": ("one_row_per_frame",),
    "pca_embedding": ("variance_explained",),
    "clusters": ("no_empty_cluster",),
    "selected_frames": ("exact_count", "every_cluster_represented"),
    "labelled_db": ("labels_converged", "isolated_energies", "binding_energy_plausible"),
    "model": (),
    "model_report": ("pair_curves", "stable_at_every_temperature", "energy_conserved"),
}
SLOWLY_MS = 60_000
RUN_MS = 600_000
SCREEN, WIDE_SCREEN = {"width": 1400, "height": 900}, {"width": 1700, "height": 560}


@pytest.fixture(scope="module")
def project(make_project, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield make_project(tmp_path_factory.mktemp("ui"), monkeypatch)


@pytest.fixture(scope="module")
def page(project, tiny_campaign, browser) -> Iterator[Page]:
    """The UI as ``mlip ui`` starts it, of a project with one campaign file."""
    tiny_campaign(project.campaigns)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with project.running("dg", "dev", "--host", "127.0.0.1", "--port", str(port)):
        project.wait_for(lambda: _answers(address), "the UI answers")
        page = browser.new_page(base_url=address, viewport=SCREEN)
        page.set_default_timeout(SLOWLY_MS)
        expect.set_options(timeout=SLOWLY_MS)
        yield page


@pytest.fixture(scope="module")
def finished(page, project) -> str:
    """The final status of a run of the campaign, launched by clicks."""
    with project.instance() as instance:
        project.wait_for(
            lambda: instance.has_dynamic_partition("campaign", "tiny"), "the sensor's partition"
        )
    _launch(page)
    return _final_status(page)


def test_lineage_link_shows_all_assets_at_the_first_visit(page):
    page.set_viewport_size(WIDE_SCREEN)
    page.goto("/")
    page.evaluate("localStorage.clear(), sessionStorage.clear()")
    page.goto(LINEAGE_PATH)
    for name in CHECKS:
        shown = re.compile(f"^({name}|{name[:4]}.*….*{name[-4:]})$")  # a long name is shortened
        expect(page.get_by_text(shown).first).to_be_visible()
    _keep(page, "lineage")
    page.set_viewport_size(SCREEN)


def test_campaign_launched_by_clicks_succeeds(finished):
    assert finished == "Success"


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("asset", CHECKS)
def test_checks_of_asset_are_shown_as_passed(page, asset):
    page.goto(f"/assets/{asset}?view=checks")
    for check in CHECKS[asset]:
        row = page.get_by_text("Succeeded", exact=True).locator("..").filter(has_text=check)
        expect(row).to_be_visible()


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("asset", CHECKS)
def test_asset_page_is_readable(page, asset):
    """Prose, a link to the source, the picture first, short keys, rounded numbers, tables last."""
    page.goto(f"/assets/{asset}")
    tables = page.locator("table[class*=AssetEventMetadataEntries]")  # one is of the columns
    metadata = tables.filter(has=page.get_by_text("wall_s", exact=True))
    rows = metadata.locator("> tbody > tr")
    expect(rows.first).to_contain_text("picture")
    keys = rows.locator("> td:first-child")
    expect(page.locator(f"a[href*='assets/{asset}.py:']")).to_be_visible()
    assert page.locator("pre").count() == 0, "a paragraph of the description is shown as code"
    overlaps = keys.evaluate_all(
        "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1)"
        ".map(cell => cell.textContent)"
    )
    assert overlaps == []
    numbers = re.findall(r"(?<![\d.,])\d{1,3}\.\d+", "\n".join(rows.all_inner_texts()))
    figures = [number.replace(".", "").lstrip("0") for number in numbers]
    assert max(map(len, figures)) <= 5, numbers


@pytest.mark.usefixtures("finished")
def test_selection_map_is_shown_as_a_picture(page):
    page.goto("/assets/selected_frames")
    row = page.get_by_role("row").filter(has=page.get_by_text("n_selected", exact=True))
    expect(row.get_by_text("8", exact=True)).to_be_visible()
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("dialog").get_by_role("img", name="picture")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    _keep(page, "selection-map")
    page.keyboard.press("Escape")
    row = page.get_by_role("row").filter(has=page.get_by_text("map_page", exact=True))
    expect(row.get_by_text("selected_frames.html")).to_be_visible()


@pytest.mark.usefixtures("finished")
def test_map_page_is_downloaded_from_the_ui_and_drawn(page, browser, tmp_path):
    page.goto("/assets/selected_frames")
    with page.expect_download() as event:
        page.get_by_text("download map_page.html").click()
    file = tmp_path / "map_page.html"
    event.value.save_as(file)
    shown = browser.new_page(viewport=SCREEN)
    shown.context.set_offline(True)
    shown.goto(file.as_uri())
    shown.wait_for_function("window.visualizer", timeout=SLOWLY_MS)
    expect(shown.get_by_text("8 of 8 selected frames")).to_be_visible()
    assert shown.locator("#page-map canvas, #page-map svg").count() > 0
    shown.close()


def _launch(page: Page) -> None:
    """The whole job, for the one partition there is."""
    page.goto("/jobs")
    page.get_by_role("link", name="campaign").first.click()
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("tiny").first).to_be_visible()
    page.get_by_role("button", name="Launch 1 run").click()


def _final_status(page: Page) -> str:
    latest = page.get_by_text("Latest run:").locator("..").get_by_role("link")
    latest.click()
    page.wait_for_url("**/runs/*")
    ended = page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first
    ended.wait_for(timeout=RUN_MS)
    return ended.inner_text()


def _keep(page: Page, name: str) -> None:
    """A picture for the documentation, when a folder for it is named."""
    if folder := os.environ.get("MLIP_SCREENSHOTS"):
        page.wait_for_timeout(5_000)  # dialogs fade in, and states are fetched one by one
        page.screenshot(path=Path(folder) / f"{name}.png")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
