"""The web page of a map: complete in itself, bounded in size, the same for the same seed."""

import json
import re

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.figures import map_page as module
from mlip_assets.figures.map_page import map_page
from mlip_assets.sampling import cluster_pool, fit_embedding, select_frames

N_FRAMES, N_PICKS = 600, 20


def frame(frame_id, reason=None):
    """Four atoms that are elsewhere in each frame."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=int(frame_id))
    atoms.info.update(
        frame_id=int(frame_id),
        walker=f"</script>{frame_id % 5}",
        temperature_K=300.0 + frame_id,
        target_temperature_K=300.0,
        surrogate_energy_eV=-14.0 - frame_id / 1000,
    )
    if reason:
        atoms.info["reason"] = reason
    return atoms


@pytest.fixture(scope="module")
def selection():
    """Embedding, clusters and picked frames of a pool whose ids are neither dense nor sorted."""
    rng = np.random.default_rng(3)
    embedding = fit_embedding(rng.normal(size=(N_FRAMES, 5)), components="fixed", n_components=3)
    ids = rng.permutation(N_FRAMES) * 7
    embedding = type(embedding)(ids, embedding.scores, embedding.pca)
    clusters = cluster_pool(embedding, N_PICKS)
    chosen = select_frames(embedding, clusters, N_PICKS)
    picks = [
        frame(ids[i], reason) for i, reason in zip(chosen.indices, chosen.reasons, strict=True)
    ]
    return embedding, clusters, picks


def page(selection, seed=0):
    return map_page("copper", *selection, lambda ids: [frame(i) for i in ids], seed=seed)


def dataset(text):
    (found,) = re.findall(r'<script type="application/json" id="dataset">(.*?)</script>', text)
    return json.loads(found)


def column(data, name):
    return data["properties"][name]["values"]


def test_map_page_shows_every_selected_frame_among_the_others(selection):
    embedding, clusters, picks = selection
    data = dataset(page(selection))
    ids = np.array(column(data, "frame_id"), dtype=int)
    assert len(data["structures"]) == N_FRAMES == len(set(ids))
    chosen = np.array(column(data, "selected")) == "selected"
    assert set(ids[chosen]) == {atoms.info["frame_id"] for atoms in picks}
    assert [bool(reason) for reason in column(data, "reason")] == list(chosen)
    row_of = {frame_id: row for row, frame_id in enumerate(embedding.frame_id)}
    rows = [row_of[i] for i in ids]
    assert np.allclose(column(data, "PC 2"), embedding.scores[rows, 1], atol=1e-5)
    assert column(data, "cluster") == clusters.cluster[rows].tolist()
    assert column(data, "energy")[0] == pytest.approx((-14 - ids[0] / 1000) / 4, abs=1e-5)
    assert column(data, "temperature")[5] == 300 + ids[5]
    assert data["properties"]["energy"]["units"] == "eV/atom"
    shown = data["structures"][9]
    assert np.allclose(shown["x"], frame(ids[9]).positions[:, 0], atol=1e-3)
    assert data["settings"]["pinned"] == [int(chosen.argmax())]


def test_map_page_loads_nothing_from_a_server(selection):
    """Nothing is linked, what is forbidden is stated, and no text ends a script early."""
    text = page(selection)
    assert not re.search(r'<(script|link|img)[^>]*\b(src|href)="', text.split("<script>")[0])
    assert "default-src 'none'" in text
    assert "connect-src" not in text
    assert len(re.findall("</script", text)) == 3
    assert column(dataset(text), "walker")[0].startswith("</script>")


def test_map_page_is_bounded_in_size_and_seeded(selection, monkeypatch):
    monkeypatch.setattr(module, "MAX_FRAMES", 50)
    data = dataset(page(selection))
    assert len(data["structures"]) == 50 + N_PICKS
    assert page(selection) == page(selection)
    others = column(data, "frame_id")[:50]
    assert others != column(dataset(page(selection, seed=1)), "frame_id")[:50]
    monkeypatch.setattr(module, "MAX_ATOMS", 30)
    data = dataset(page(selection))
    sizes = np.array([structure["size"] for structure in data["structures"]])
    chosen = np.array(column(data, "selected")) == "selected"
    assert 0 < sizes[chosen].sum() <= 30
    assert 0 < sizes[~chosen].sum() <= 30


def test_map_page_of_a_completely_selected_pool_with_one_component():
    rng = np.random.default_rng(0)
    embedding = fit_embedding(rng.normal(size=(6, 2)), components="fixed", n_components=1)
    clusters = cluster_pool(embedding, 6)
    picks = [frame(i, "all") for i in range(6)]
    data = dataset(page((embedding, clusters, picks)))
    assert set(column(data, "selected")) == {"selected"}
    assert data["settings"]["map"]["y"] == {"property": "energy"}
