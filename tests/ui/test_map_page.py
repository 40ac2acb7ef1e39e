"""The map as a page: opened as a file, drawn, and a click shows another structure."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from playwright.sync_api import expect

from mlip_assets.figures.map_page import map_page
from mlip_assets.sampling import cluster_pool, fit_embedding, select_frames

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

N_FRAMES, N_PICKS = 300, 6
#: Finds the plot, wherever in the page it is.
FIND_PLOT = """
const search = (node) => {
  if (node.classList && node.classList.contains("js-plotly-plot")) return node;
  const inside = [...(node.shadowRoot ? [node.shadowRoot] : []), ...(node.children || [])];
  return inside.map(search).find(Boolean);
};
const plot = search(document.body);
"""
#: Where on the screen a frame is drawn.
PLACE = f"""([x, y]) => {{
  {FIND_PLOT}
  const box = plot.getBoundingClientRect(), {{ xaxis, yaxis }} = plot._fullLayout;
  return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
}}"""


def frame(frame_id):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.3, seed=int(frame_id))
    atoms.info.update(frame_id=int(frame_id), walker="w", temperature_K=300.0)
    atoms.info.update(target_temperature_K=300.0, surrogate_energy_eV=-1.0)
    return atoms


@pytest.fixture
def page_file(tmp_path) -> tuple[Path, np.ndarray, list[int]]:
    """A page, the places of all frames on its map, and the frames selected."""
    scores = np.random.default_rng(0).normal(size=(N_FRAMES, 4)) * [9, 4, 1, 1]
    embedding = fit_embedding(scores, components="fixed", n_components=2)
    clusters = cluster_pool(embedding, N_PICKS)
    chosen = select_frames(embedding, clusters, N_PICKS).indices
    picks = [frame(i) for i in chosen]
    file = tmp_path / "selected_frames.html"
    text = map_page("toy", embedding, clusters, picks, lambda ids: list(map(frame, ids)), seed=0)
    file.write_text(text, encoding="utf-8")
    return file, embedding.scores, chosen.tolist()


def test_map_page_shows_the_structure_of_a_clicked_point(browser, page_file):
    file, places, picks = page_file
    page = browser.new_page(viewport={"width": 1400, "height": 850})
    page.set_default_timeout(60_000)
    page.context.set_offline(True)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(file.as_uri())
    page.wait_for_function("window.visualizer")
    drawn = page.evaluate(f"() => {{ {FIND_PLOT} return plot.data[0].x.length; }}")
    assert drawn == N_FRAMES
    assert _colours(page) > 20  # the map's canvas has been painted in colours
    number = page.locator("#page-info input[type=number]").first
    others = N_FRAMES - N_PICKS
    expect(number).to_have_value(str(others))  # the first pick: they come after the others

    seen = [page.locator("#page-structure").screenshot()]
    for at, pick in enumerate(picks[1:3], start=1):
        page.mouse.click(*page.evaluate(PLACE, places[pick].tolist()))
        expect(number).to_have_value(str(others + at))
        page.wait_for_timeout(500)
        seen.append(page.locator("#page-structure").screenshot())
    assert len(set(seen)) == 3
    if folder := os.environ.get("MLIP_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "map-page.png")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []


def _colours(page) -> int:
    """Different colours in a picture of the map."""
    import io

    from matplotlib.image import imread

    picture = imread(io.BytesIO(page.locator("#page-map").screenshot()))
    return len(np.unique((picture[::2, ::2, :3] * 15).astype(int).reshape(-1, 3), axis=0))
