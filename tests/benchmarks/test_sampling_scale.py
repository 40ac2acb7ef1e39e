"""The short form of ``sampling_scale.py``: time and memory grow no faster than the frames."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sampling_scale.py")
SIZES = (20_000, 80_000)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="peak memory is read as on Linux")
def test_linear_time_and_bounded_memory(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sampling_scale", SCRIPT)
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    small, large = (
        (scale.generate(tmp_path / str(n), n, 64), scale.measured(tmp_path / str(n), 300))[1]
        for n in SIZES
    )
    assert small["n_selected"] == large["n_selected"] == 300
    assert small["clusters_hit"] == large["clusters_hit"] == 300
    # a second is what the steps cost whose work does not depend on the frames
    assert large["selected_s"] < 1.2 * SIZES[1] / SIZES[0] * small["selected_s"] + 1
    assert large["peak_MiB"] - small["peak_MiB"] < 80_000 * 64 * 8 / 2**20  # a matrix in float64
    assert large["distance_p99"] < large["distance_p99_random_mean"]
