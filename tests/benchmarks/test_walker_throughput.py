"""Sixteen small cells in one batch against one by one, in turn, in CPU time."""

import time

import pytest

from mlip_assets.surrogates import find_surrogate
from tests.benchmarks.walker_throughput import rates


@pytest.mark.slow
def test_sixteen_small_cells(benchmark):
    pytest.importorskip("torch_sim")
    surrogate = find_surrogate("bundled", device="cpu", dtype="float32")
    found = benchmark.pedantic(rates, args=(surrogate, 8, 16, 10, 2, time.process_time), rounds=1)
    ratio = found["torchsim"] / found["ase"]
    benchmark.extra_info["torchsim_over_ase"] = ratio
    assert ratio > 2.5  # five to six on an idle core
