"""The scripts of ``examples/``, each run in a new process and folder."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MAX_LINES = 40


def run(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in ``folder`` and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_after(text: str, output: str) -> float:
    """The first number after ``text``."""
    found = re.search(re.escape(text) + r"\D*?(-?\d+(\.\d+)?)", output)
    assert found, f"no number after '{text}' in:\n{output}"
    return float(found[1])


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> tuple[str, Path]:
    """Output and folder of the example that makes labels."""
    folder = tmp_path_factory.mktemp("labels")
    return run("label_with_emt.py", folder), folder


def test_every_example_is_short_explained_and_tested():
    this_file = Path(__file__).read_text(encoding="utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 4
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert text.startswith('"""')
        assert len(text.splitlines()) <= MAX_LINES
        assert f'run("{script.name}"' in this_file


def test_soap_of_trajectory_compares_frames(tmp_path):
    output = run("soap_of_trajectory.py", tmp_path)
    assert "51 frames, 252 features each" in output
    similarities = [float(line.split()[-1]) for line in output.splitlines() if " fs: " in line]
    assert len(similarities) == 6
    assert similarities[0] == 1
    assert all(0.99 < similarity < 1 for similarity in similarities[1:])


@pytest.mark.slow
def test_select_frames_covers_more_than_random(tmp_path):
    output = run("select_frames.py", tmp_path)
    with (tmp_path / "selected.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["row"] for row in rows}) == 40
    assert {row["phase"] for row in rows} == {"solid", "liquid", "vapour"}
    of_selection = number_after("coverage of the selection", output)
    assert of_selection > number_after("of random selections", output)


@pytest.mark.slow
def test_label_with_emt_reuses_every_label(labels):
    output, folder = labels
    assert "17 calculations, 0 reused" in output  # 16 frames and the isolated atom
    assert "second call: 0 calculations, 17 reused" in output
    frames = read(folder / "labels" / "labels.extxyz", ":")
    assert sum("REF_energy" in atoms.info for atoms in frames) == 17


@pytest.mark.slow
def test_train_from_extxyz_beats_the_mean_predictor(labels, tmp_path):
    _, folder = labels
    output = run("train_from_extxyz.py", tmp_path, str(folder / "labels" / "labels.extxyz"))
    rows = [line.split() for line in output.splitlines()]
    errors = {(row[0], row[1]): float(row[-1]) for row in rows[1:] if len(row) == 4}
    assert errors["test", "model"] < errors["test", "mean_predictor"]
    (file,) = [row[1] for row in rows if row[0] == "potential:"]
    assert (tmp_path / file).is_file()


@pytest.mark.slow
def test_explore_argon_stores_every_frame(tmp_path):
    output = run("explore_argon.py", tmp_path)
    assert "120 frames of 6 walkers" in output
    assert len(read(tmp_path / "argon.extxyz", ":")) == 120
    again = run("explore_argon.py", tmp_path)
    assert again == output
