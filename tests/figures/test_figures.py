"""Pictures of very many frames: quick, small, and the rare ones are still seen."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from matplotlib.image import imread

from mlip_assets import figures
from mlip_assets.figures import canvas, maps
from mlip_assets.sampling import Clusters, Embedding, PrincipalComponents

N_FRAMES, N_CLUSTERS = 1_000_000, 2000


@pytest.fixture(scope="module")
def pool():
    """A million frames in one dense spot, but for one that is far away."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(N_FRAMES, 3))
    scores[-1] = 20
    axes = PrincipalComponents(
        np.zeros(3), np.ones(3), np.eye(3), np.ones(3), np.array([0.5, 0.3, 0.2])
    )
    cluster = np.sort((N_CLUSTERS * rng.random(N_FRAMES) ** 2).astype(np.int64))
    centres = (
        np.stack([np.bincount(cluster, c) for c in scores.T], 1) / np.bincount(cluster)[:, None]
    )
    ids = np.arange(N_FRAMES)
    return (
        Embedding(ids, scores, axes),
        Clusters(ids, cluster, np.zeros(N_FRAMES), centres, np.ones(3)),
    )


def test_selection_map_of_a_million_frames_is_small_and_fast(pool):
    embedding, clusters = pool
    selected = np.arange(0, N_FRAMES, N_FRAMES // N_CLUSTERS)
    started = time.process_time()
    png = figures.selection_map(embedding, clusters, selected, embedding.scores[:7] + 0.1)
    assert time.process_time() - started < 20
    assert len(png) < 400_000
    picture = imread(io.BytesIO(png))
    assert 800 < picture.shape[1] < 1200


def test_density_map_shows_a_single_frame(pool):
    """The far corner of the map is empty but for it."""
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    maps._map(axis, *pool)
    (picture,) = axis.images
    opacity = picture.get_array()[:, :, 3]
    assert opacity[-1, -1] >= 0.25
    assert np.count_nonzero(opacity[-20:, -20:]) == 1
    assert opacity.max() == 1


def test_cluster_bars_contain_every_frame_and_selection(pool):
    from matplotlib.figure import Figure

    _, clusters = pool
    axis = Figure().subplots()
    maps._cluster_bars(
        axis, frames=clusters.sizes, selected=np.ones(len(clusters.sizes), dtype=int)
    )
    heights = [bar.get_height() for bar in axis.patches]
    assert len(heights) <= maps.CLUSTER_BARS
    assert sum(heights) == N_FRAMES
    assert heights[0] == max(heights)
    (line,) = axis.lines
    assert line.get_ydata().sum() == len(clusters.sizes)


def test_pick_table_has_a_row_for_each_selected_frame():
    def pick(frame_id):
        info = {"frame_id": np.int64(frame_id), "walker": "w", "temperature_K": 311.123456}
        info |= {"target_temperature_K": 300.0, "surrogate_energy_eV": -7.0, "cluster": 3}
        return Atoms("Si2", info=info | {"reason": "medoid of cluster 3"})

    records = figures.pick_table([pick(i) for i in range(300)]).records
    assert [record.data["frame_id"] for record in records] == list(range(300))
    assert records[0].data["surrogate_energy_eV_per_atom"] == -3.5
    assert records[0].data["temperature_K"] == 311.12
    assert len(figures.pick_table([pick(i) for i in range(1500)]).records) == maps.PICK_ROWS


def test_table_of_dataframe_leaves_missing_values_empty():
    frame = pd.DataFrame({"energy_eV": [1.234567, np.nan], "n": pd.array([1, None], dtype="Int64")})
    first, second = figures.table(frame).records
    assert first.data == {"energy_eV": 1.2346, "n": 1}
    assert second.data == {"energy_eV": "", "n": ""}
    assert len(figures.table(pd.DataFrame({"n": range(500)})).records) == canvas.TABLE_ROWS
    assert figures.table(pd.DataFrame()).value == "none"
