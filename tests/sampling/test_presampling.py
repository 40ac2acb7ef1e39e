from __future__ import annotations

import numpy as np
import pytest

from mlip_assets.sampling import (
    cluster_pool,
    direct_select,
    fit_embedding,
    measure_coverage,
    presample,
)


@pytest.fixture(scope="module")
def walkers() -> np.ndarray:
    """20 walkers of 1500 frames moving slowly from different points; one frame is far away."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 1500, 4)) * 0.1
    rows = (rng.normal(size=(20, 1, 4)) * 4 + np.cumsum(steps, axis=1)).reshape(-1, 4)
    rows[23_456] += 60
    return rows


def test_presample_keeps_equal_fraction_of_each_block_and_rare_frame(walkers: np.ndarray) -> None:
    embedding = fit_embedding(walkers)
    kept = presample(embedding, 3000)
    assert 0.98 * 3000 < len(kept) <= 3000
    assert (np.diff(kept) > 0).all()
    assert 23_456 in kept
    shares = np.bincount(kept // 1024)
    assert shares[:-1].tolist() == [1024 * 3000 // 30_000] * (len(shares) - 1)
    assert len(presample(embedding, 1)) == len(shares)


@pytest.mark.parametrize("presample_above", [3000, None])
def test_cluster_pool_with_presampling_covers_more_than_random(
    walkers: np.ndarray, presample_above: int | None
) -> None:
    embedding = fit_embedding(walkers)
    clusters = cluster_pool(embedding, 150, presample_above=presample_above)
    medoids = np.lexsort((clusters.distance_to_centre, clusters.cluster))[
        np.cumsum(clusters.sizes) - clusters.sizes
    ]
    assert clusters.sizes.sum() == 30_000
    report = measure_coverage(embedding, medoids, seed=0, n_random=5)
    assert report.selection.score > report.random_mean.score + 2 * report.random_sd.score
    assert 23_456 in medoids


def test_cluster_pool_keeps_enough_frames_for_samples(walkers: np.ndarray) -> None:
    embedding = fit_embedding(walkers[:3000])
    clusters = cluster_pool(embedding, 250, presample_above=100)
    assert (clusters.sizes > 0).sum() == 250


def test_presampling_selects_the_requested_number_for_any_order_of_rows(
    walkers: np.ndarray,
) -> None:
    order = np.random.default_rng(0).permutation(len(walkers))
    chosen = direct_select(walkers, 150, presample_above=3000).indices
    again = direct_select(walkers[order], 150, presample_above=3000, frame_ids=order).indices
    assert len(np.unique(chosen)) == 150
    assert set(order[again]) == set(chosen)
