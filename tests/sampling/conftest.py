from __future__ import annotations

import numpy as np
import pytest

BLOB_SIZES = (700, 290, 10)


@pytest.fixture(scope="session")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Descriptors (1000, 12) of three shuffled blobs, one of them rare, and the blob of each row.

    The 12 features are mixtures of 3 variables, so that they are correlated like real features.
    """
    rng = np.random.default_rng(11)
    blob = rng.permutation(np.repeat([0, 1, 2], BLOB_SIZES))
    centres = np.array([[0.0, 0.0, 0.0], [25.0, 0.0, 0.0], [0.0, 25.0, 15.0]])
    hidden = centres[blob] + rng.normal(size=(1000, 3))
    mixing = rng.normal(size=(3, 12))
    return hidden @ mixing + 0.05 * rng.normal(size=(1000, 12)), blob
