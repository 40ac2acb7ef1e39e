"""What a person sees and clicks: a browser opens the UI, runs a campaign and reads its results."""

from __future__ import annotations

import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

#: Every asset and the checks it must pass. Left out are those that compare with chance or a
#: mean: eight frames of a toy leave them open.
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


@pytest.fixture
def url(project, tiny_campaign) -> Iterator[str]:
    """The UI as ``make ui`` serves it, of a project with one campaign file."""
    tiny_campaign(project.campaigns)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with project.running("dg", "dev", "--host", "127.0.0.1", "--port", str(port)):
        project.wait_for(lambda: _answers(address), "the UI answers")
        yield address


@pytest.fixture
def page(browser, url) -> Page:
    page = browser.new_page(base_url=url, viewport=SCREEN)
    page.set_default_timeout(SLOWLY_MS)
    expect.set_options(timeout=SLOWLY_MS)
    return page


def test_a_campaign_is_run_by_clicking_and_its_results_are_seen(page, project):
    with _reports_the_page(page, project):
        _see_the_lineage(page)
        with project.instance() as instance:
            project.wait_for(
                lambda: instance.has_dynamic_partition("campaign", "tiny"), "the sensor's partition"
            )
        _launch(page)
        _wait_for_success(page)
        _see_the_lineage(page)
        for asset, checks in CHECKS.items():
            _see_green_checks(page, asset, checks)
        _see_the_selection(page)


def _see_the_lineage(page: Page) -> None:
    """As one who has never been here: groups are closed until all are opened."""
    page.set_viewport_size(WIDE_SCREEN)
    page.goto("/asset-groups")
    page.evaluate("localStorage.clear(), sessionStorage.clear()")
    page.goto("/asset-groups")
    expect(page.get_by_text("selection", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Hide navigation").click()
    page.get_by_role("img", name=re.compile("^panel_show")).last.click()
    page.mouse.click(WIDE_SCREEN["width"] / 2, WIDE_SCREEN["height"] - 50, button="right")
    page.get_by_role("menuitem", name="Expand all groups").click()
    for name in CHECKS:
        shown = re.compile(f"^({name}|{name[:4]}.*….*{name[-4:]})$")  # a long name is shortened
        expect(page.get_by_text(shown).first).to_be_visible()
    _keep(page, "lineage")
    page.set_viewport_size(SCREEN)


def _launch(page: Page) -> None:
    """The whole job, for the one partition there is."""
    page.goto("/jobs")
    page.get_by_role("link", name="campaign").first.click()
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("tiny").first).to_be_visible()
    page.get_by_role("button", name="Launch 1 run").click()


def _wait_for_success(page: Page) -> None:
    latest = page.get_by_text("Latest run:").locator("..").get_by_role("link")
    latest.click()
    page.wait_for_url("**/runs/*")
    ended = page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first
    ended.wait_for(timeout=RUN_MS)
    assert ended.inner_text() == "Success"


def _see_green_checks(page: Page, asset: str, checks: tuple[str, ...]) -> None:
    page.goto(f"/assets/{asset}?view=checks")
    for check in checks:
        row = page.get_by_text("Succeeded", exact=True).locator("..").filter(has_text=check)
        expect(row).to_be_visible()


def _see_the_selection(page: Page) -> None:
    """The count, and the map as a picture that has really been decoded."""
    page.goto("/assets/selected_frames")
    row = page.get_by_role("row").filter(has=page.get_by_text("n_selected", exact=True))
    expect(row.get_by_text("8", exact=True)).to_be_visible()
    page.get_by_text("[Show Markdown]").click()
    picture = page.get_by_role("dialog").get_by_role("img", name="picture")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    _keep(page, "selection-map")
    page.keyboard.press("Escape")
    row = page.get_by_role("row").filter(has=page.get_by_text("map_page", exact=True))
    expect(row.get_by_text("selected_frames.html")).to_be_visible()


@contextmanager
def _reports_the_page(page: Page, project) -> Iterator[None]:
    try:
        yield
    except (AssertionError, BrowserError) as error:
        picture = project.folder / "failure.png"
        page.screenshot(path=picture)
        text = page.locator("body").inner_text()
        pytest.fail(
            f"{error}\nat {page.url}, picture: {picture}; the page shows:\n{text[:3000]}\n"
            f"the server logs:\n{project.log_tail()}"
        )


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
