from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.training import judge, promote, promoted_model
from mlip_assets.training.promotion import TOLERANCE, Promotion

POSITIVE = st.floats(0.1, 1e4)


def errors(force, energy):
    return {"force_rmse_meV_per_A": force, "energy_rmse_meV_per_atom": energy}


def verdict(ours, theirs, *, standing=1.0, is_stable=True):
    return judge(
        errors(*ours),
        errors(*theirs),
        rival_is="the promoted model",
        rival_standing=standing,
        is_stable=is_stable,
    )


def test_better_equal_and_hardly_worse_are_promoted_and_worse_is_not():
    assert verdict((90, 9), (100, 10)).promoted
    assert verdict((100, 10), (100, 10)).promoted
    assert verdict((101, 10), (100, 10)).promoted
    worse = verdict((100, 12), (100, 10))
    assert not worse.promoted
    assert worse.ratio == pytest.approx(math.sqrt(1.2))
    assert worse.reason.startswith("worse: 1.095 × the force and energy RMSE of the promoted model")


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
    with pytest.raises(FileNotFoundError):
        promoted_model(tmp_path)
    first = Promotion(True, "the first", 0.5, 1.0)
    promote(tmp_path, trained, first)
    model, found = promoted_model(tmp_path)
    assert found == first
    assert model.weights_sha256 == trained.weights_sha256
    assert model.model_file.parent.parent == tmp_path
    (tmp_path / "promoted.json").write_text(
        (tmp_path / "promoted.json").read_text().replace(trained.weights_sha256, "f" * 64)
    )
    with pytest.raises(ValueError, match="is not the model that"):
        promoted_model(tmp_path)


def test_a_kill_while_promoting_leaves_the_earlier_one(trained, tmp_path):
    """Killed where the copy is there and the pointer is not: what was promoted still is."""
    promote(tmp_path, trained, Promotion(True, "the first", 0.5, 1.0))
    script = (
        "import os, signal\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from mlip_assets.training import promotion\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "model, first = promotion.promoted_model(folder)\n"
        "other = replace(model, weights_sha256='e' * 64)\n"
        "promotion.write_text = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "promotion.promote(folder, other, first)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / ("e" * 16) / "metrics.json").exists()
    model, found = promoted_model(tmp_path)
    assert model.weights_sha256 == trained.weights_sha256
    assert found.reason == "the first"
