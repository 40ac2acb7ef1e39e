"""Means of correlated samples compared with exact values, in standard errors.

The standard error of the mean of a time series is estimated from block averages (Flyvbjerg and
Petersen, J. Chem. Phys. 91, 461 (1989)): blocks that are long compared with the correlation time
have independent means.
"""

import numpy as np

#: Blocks per series. The relative uncertainty of the standard error is sqrt(1/(2·(20 - 1))) = 16 %.
N_BLOCKS = 20


def block_standard_error(samples, n_blocks=N_BLOCKS):
    """Standard error of the mean of a correlated series.

    Parameters
    ----------
    samples
        ``(n,)``, in order of time; the first ``n % n_blocks`` are not used.
    n_blocks
        Blocks of equal length, which must exceed the correlation time.
    """
    samples = np.asarray(samples, dtype=float)
    length = len(samples) // n_blocks
    if length < 1:
        raise ValueError(f"{len(samples)} samples are fewer than {n_blocks} blocks")
    means = samples[len(samples) - n_blocks * length :].reshape(n_blocks, length).mean(axis=1)
    return means.std(ddof=1) / np.sqrt(n_blocks)


def deviation_in_sigma(samples, expected):
    """Mean of ``samples`` less ``expected``, in standard errors of the mean."""
    return (np.mean(samples) - expected) / block_standard_error(samples)


def assert_within_sigma(samples, expected, n_sigma=4.0, *, max_relative_error=None):
    """Fail if the mean differs from ``expected`` by more than ``n_sigma`` standard errors.

    Parameters
    ----------
    samples
        ``(n,)``, in order of time.
    expected
        Exact value of the mean.
    n_sigma
        4: a correct series fails with a probability below 0.1 % (Student's t, 19 degrees of
        freedom).
    max_relative_error
        Largest allowed standard error over ``expected``, so that a test keeps its power when its
        series is shortened.
    """
    error = block_standard_error(samples)
    deviation = deviation_in_sigma(samples, expected)
    text = (
        f"mean {np.mean(samples):.6g} ± {error:.2g} deviates by {deviation:+.2f} sigma from "
        f"{expected:.6g}; at most {n_sigma:g} sigma are allowed"
    )
    assert abs(deviation) <= n_sigma, text
    if max_relative_error is not None:
        assert error <= max_relative_error * abs(expected), (
            f"standard error {error:.2g} exceeds {max_relative_error:g} of {expected:.6g}: the "
            "series is too short"
        )
