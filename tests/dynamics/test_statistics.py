"""Block averages on correlated noise whose standard error is known."""

import numpy as np
import pytest

from tests.dynamics.statistics import (
    assert_within_sigma,
    block_standard_error,
    deviation_in_sigma,
)

CORRELATION, N_SAMPLES = 0.9, 4000
#: Of x_t = 0.9·x_(t-1) + noise of variance 1 - 0.9²: variance 1, and a statistical inefficiency of
#: (1 + 0.9) / (1 - 0.9) = 19 samples.
EXACT_ERROR = np.sqrt(19 / N_SAMPLES)


def correlated_noise(random_seed):
    """``(N_SAMPLES,)``, mean 0, variance 1."""
    rng = np.random.default_rng(random_seed)
    noise = np.sqrt(1 - CORRELATION**2) * rng.standard_normal(N_SAMPLES)
    series = np.empty(N_SAMPLES)
    value = rng.standard_normal()
    for step in range(N_SAMPLES):
        value = CORRELATION * value + noise[step]
        series[step] = value
    return series


@pytest.fixture(scope="module")
def series():
    return [correlated_noise(seed) for seed in range(100)]


def test_block_standard_error_includes_correlation(series):
    errors = np.array([block_standard_error(samples) for samples in series])
    naive = np.array([samples.std(ddof=1) / np.sqrt(N_SAMPLES) for samples in series])
    assert np.sqrt((errors**2).mean()) == pytest.approx(EXACT_ERROR, rel=0.1)
    assert naive.mean() < 0.3 * EXACT_ERROR


def test_deviation_in_sigma_has_unit_variance(series):
    """Student's t with 19 degrees of freedom has the variance 19/17."""
    deviations = np.array([deviation_in_sigma(samples, 0) for samples in series])
    assert deviations.std() == pytest.approx(np.sqrt(19 / 17), rel=0.25)
    assert np.abs(deviations).max() < 4


def test_assert_within_sigma_fails_for_shifted_mean(series):
    for samples in series[:20]:
        assert_within_sigma(samples, 0)
        with pytest.raises(AssertionError, match=r"deviates by \+\d+\.\d\d sigma from 0"):
            assert_within_sigma(samples + 8 * EXACT_ERROR, 0)


def test_assert_within_sigma_fails_for_short_series(series):
    assert_within_sigma(1 + series[0], 1, max_relative_error=0.1)
    with pytest.raises(AssertionError, match="series is too short"):
        assert_within_sigma(1 + series[0], 1, max_relative_error=0.02)
    with pytest.raises(ValueError, match="fewer than 20 blocks"):
        assert_within_sigma(series[0][:19], 0)
