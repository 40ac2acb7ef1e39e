from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.release import PromotedModels, decide_promotion
from mlip_assets.release.promotion import TOLERANCE, Promotion

POSITIVE = st.floats(0.1, 1e4)


def errors(force, energy):
    return {"force_rmse_meV_per_A": force, "energy_rmse_meV_per_atom": energy}


def decision(ours, theirs, *, baseline_ratio=1.0, is_stable=True):
    found = {
        "model": errors(*ours),
        "promoted": errors(*theirs),
        "mean_predictor": errors(1e9, 1e9),
    }
    return decide_promotion(found, baseline_ratio=baseline_ratio, is_stable=is_stable)


def test_decide_promotion_accepts_better_equal_and_within_tolerance_only():
    assert decision((90, 9), (100, 10)).promoted
    assert decision((100, 10), (100, 10)).promoted
    assert decision((101, 10), (100, 10)).promoted
    worse = decision((100, 12), (100, 10))
    assert not worse.promoted
    assert worse.ratio == pytest.approx(math.sqrt(1.2))
    assert worse.reason.startswith("worse: 1.095 × the force and energy RMSE of the promoted model")


def test_decide_promotion_compares_first_model_with_mean_predictor():
    baseline = {"mean_predictor": errors(100, 10)}
    first = decide_promotion(
        {"model": errors(50, 5), **baseline}, baseline_ratio=1.3, is_stable=True
    )
    assert first.promoted
    assert first.error_ratio_to_best == 1
    assert "of the mean predictor" in first.reason
    assert not decide_promotion(
        {"model": errors(110, 11), **baseline}, baseline_ratio=1.0, is_stable=True
    ).promoted


def test_decide_promotion_accepts_lower_force_error_with_higher_energy_error():
    assert decision((80, 11), (100, 10)).promoted


def test_decide_promotion_refuses_unstable_model_and_model_without_errors():
    unstable = decision((1, 1), (100, 10), is_stable=False)
    assert not unstable.promoted
    assert "a guard stopped" in unstable.reason
    assert not decision((None, 1), (100, 10)).promoted


@given(start=st.tuples(POSITIVE, POSITIVE), steps=st.lists(st.floats(0.9, 1.1), max_size=30))
def test_decide_promotion_small_losses_cannot_accumulate(start, steps):
    promoted, ratio, best = start, 1.0, start
    for factor in steps:
        candidate = tuple(error * factor for error in promoted)
        found = decision(candidate, promoted, baseline_ratio=ratio)
        if found.promoted:
            promoted, ratio = candidate, found.error_ratio_to_best
            best = min(best, candidate)
        assert promoted[0] <= best[0] * (1 + TOLERANCE) * (1 + 1e-9)


def test_promoted_models_point_to_stored_copy(trained, tmp_path):
    models = PromotedModels(tmp_path)
    assert models.name is None
    with pytest.raises(FileNotFoundError):
        models.in_use()
    first = Promotion(True, "the first", 0.5, 1.0)
    models.promote(trained, first)
    model, found = models.in_use()
    assert models.name == model.model_file.parent.name
    assert found == first
    assert model.weights_sha256 == trained.weights_sha256
    assert model.model_file.parent.parent == tmp_path
    record = json.loads((tmp_path / "promoted.json").read_text())
    assert record == {  # the keys of release 0.1
        "model": models.name,
        "weights_sha256": trained.weights_sha256,
        "promoted": True,
        "reason": "the first",
        "ratio": 0.5,
        "standing": 1.0,
    }
    (tmp_path / "promoted.json").write_text(
        (tmp_path / "promoted.json").read_text().replace(trained.weights_sha256, "f" * 64)
    )
    with pytest.raises(ValueError, match="is not the model that"):
        models.in_use()


def test_promoted_models_keep_earlier_model_after_kill(trained, tmp_path):
    """The process is killed after the copy and before the pointer; the earlier model stays in use."""
    PromotedModels(tmp_path).promote(trained, Promotion(True, "the first", 0.5, 1.0))
    script = (
        "import os, signal\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from mlip_assets.release import promotion\n"
        f"models = promotion.PromotedModels(Path({str(tmp_path)!r}))\n"
        "model, first = models.in_use()\n"
        "other = replace(model, weights_sha256='e' * 64)\n"
        "promotion.write_text = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "models.promote(other, first)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / ("e" * 16) / "metrics.json").exists()
    model, found = PromotedModels(tmp_path).in_use()
    assert model.weights_sha256 == trained.weights_sha256
    assert found.reason == "the first"
