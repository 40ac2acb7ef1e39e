"""The terminal, as a new user meets it: wrong input ends with one clear line, quickly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MISTAKES = {
    "typo in a key": ("exploration:\n  temperature_K: [300]\n", "did you mean 'temperatures_K'"),
    "unknown element": ("composition: Sj\n", "'Sj' is not a chemical element"),
    "negative temperature": ("exploration:\n  temperatures_K: [-300]\n", "-300 K is not possible"),
    "missing model file": ("exploration:\n  surrogate: my.model\n", "my.model does not exist"),
    "unreadable structure file": ("seeds:\n  files: [broken.cif]\n", "cannot be read"),
    "more samples than frames": ("sampling:\n  n_samples: 100000\n", "give at most"),
    "element the surrogate lacks": ("composition: Fe\n", "does not support Fe"),
}


def terminal(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mlip_assets", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_any_compute(tmp_path, mistake):
    text, said = MISTAKES[mistake]
    (tmp_path / "broken.cif").write_text("no crystal")
    lines = "name: mine\n" + ("" if "composition" in text else "composition: Si\n") + text
    (tmp_path / "mine.yaml").write_text(lines)
    before = os.times()
    ended = terminal("run", tmp_path / "mine.yaml", MLIP_DATA=str(tmp_path / "data"))
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(tmp_path / "mine.yaml") in ended.stderr
    assert not (tmp_path / "data").exists()
    after = os.times()
    cpu_s = sum(after[2:4]) - sum(before[2:4])  # wall time says more of the machine than of us
    assert cpu_s < 5


def test_unknown_campaign():
    ended = terminal("run", "quickstrat")
    assert ended.returncode == 2
    assert "did you mean 'campaigns/quickstart.yaml'" in ended.stderr


def test_there_is_nothing_to_pack_before_a_model_was_promoted(tmp_path):
    ended = terminal("package", "quickstart", MLIP_DATA=str(tmp_path))
    assert ended.returncode == 2
    assert "campaign 'quickstart' has no promoted model" in ended.stderr
    assert "make run CAMPAIGN=quickstart" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (
            "exclude_labelled_in: [silver]",
            "sampling.exclude_labelled_in: campaign 'silver' has no labels",
        ),
        ("pca_from: silver", "sampling.pca_from: campaign 'silver' has no map"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_earlier_run_that_is_not_there_is_told_too(tmp_path, command, sampling, said):
    (tmp_path / "onward.yaml").write_text(
        f"name: onward\ncomposition: Si\nsampling: {{{sampling}}}\n", encoding="utf-8"
    )
    ended = terminal(command, tmp_path / "onward.yaml", MLIP_DATA=str(tmp_path / "data"))
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_check_says_what_would_be_computed():
    ended = terminal("check", "quickstart")
    assert ended.returncode == 0, ended.stderr
    assert "select   40 of" in ended.stdout
    assert "describe 252 features per frame\n" in ended.stdout


def test_check_says_that_descriptors_are_long_and_what_helps(tmp_path):
    text = "name: salt\ncomposition: NaCl\ndescriptors: {n_max: 14, l_max: 14}\n"
    (tmp_path / "salt.yaml").write_text(text, encoding="utf-8")
    ended = terminal("check", tmp_path / "salt.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "describe 6090 features per frame; descriptors.compression reduces" in ended.stdout


def test_show_prints_a_campaign_file(tmp_path):
    shown = terminal("show", "quickstart").stdout
    (tmp_path / "quickstart.yaml").write_text(shown, encoding="utf-8")
    assert terminal("show", tmp_path / "quickstart.yaml").stdout == shown
