from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.release import PromotedModels, judge
from mlip_assets.release.promotion import TOLERANCE, Promotion

POSITIVE = st.floats(0.1, 1e4)


def errors(force, energy):
    return {"force_rmse_meV_per_A": force, "energy_rmse_meV_per_atom": energy}


def verdict(ours, theirs, *, standing=1.0, is_stable=True):
    found = {
        "model": errors(*ours),
        "promoted": errors(*theirs),
        "mean_predictor": errors(1e9, 1e9),
    }
    return judge(found, rival_standing=standing, is_stable=is_stable)


def test_better_equal_and_hardly_worse_are_promoted_and_worse_is_not():
    assert verdict((90, 9), (100, 10)).promoted
    assert verdict((100, 10), (100, 10)).promoted
    assert verdict((101, 10), (100, 10)).promoted
    worse = verdict((100, 12), (100, 10))
    assert not worse.promoted
    assert worse.ratio == pytest.approx(math.sqrt(1.2))
    assert worse.reason.startswith("worse: 1.095 × the force and energy RMSE of the promoted model")


def test_without_a_promoted_model_the_mean_predictor_is_to_be_beaten():
    rival = {"mean_predictor": errors(100, 10)}
    first = judge({"model": errors(50, 5), **rival}, rival_standing=1.3, is_stable=True)
    assert first.promoted
    assert first.standing == 1
    assert "of the mean predictor" in first.reason
    assert not judge(
        {"model": errors(110, 11), **rival}, rival_standing=1.0, is_stable=True
    ).promoted


def test_a_gain_in_forces_may_pay_for_energies():
    assert verdict((80, 11), (100, 10)).promoted


def test_an_unstable_model_is_never_promoted_nor_one_without_errors():
    unstable = verdict((1, 1), (100, 10), is_stable=False)
    assert not unstable.promoted
    assert "broke a guard" in unstable.reason
    assert not verdict((None, 1), (100, 10)).promoted


@given(start=st.tuples(POSITIVE, POSITIVE), steps=st.lists(st.floats(0.9, 1.1), max_size=30))
def test_models_each_a_little_worse_cannot_creep_away_from_the_best(start, steps):
    promoted, standing, best = start, 1.0, start
    for factor in steps:
        candidate = tuple(error * factor for error in promoted)
        found = verdict(candidate, promoted, standing=standing)
        if found.promoted:
            promoted, standing = candidate, found.standing
            best = min(best, candidate)
        assert promoted[0] <= best[0] * (1 + TOLERANCE) * (1 + 1e-9)


def test_promoting_points_to_a_copy_that_stays(trained, tmp_path):
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
    (tmp_path / "promoted.json").write_text(
        (tmp_path / "promoted.json").read_text().replace(trained.weights_sha256, "f" * 64)
    )
    with pytest.raises(ValueError, match="is not the model that"):
        models.in_use()


def test_a_kill_while_promoting_leaves_the_earlier_one(trained, tmp_path):
    """Killed where the copy is there and the pointer is not: what was promoted still is."""
    PromotedModels(tmp_path).promote(trained, Promotion(True, "the first", 0.5, 1.0))
    script = (
        "import os, signal\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from mlip_assets.training import promotion\n"
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
