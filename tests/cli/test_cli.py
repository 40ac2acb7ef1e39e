"""``mlip check``, ``show``, ``run`` and ``package``: output, messages for wrong input, exit status."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mlip_assets.cli import main
from mlip_assets.cli.parser import CAMPAIGN_COMMANDS

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


def python_m(*arguments, **environment):
    """``python -m mlip_assets`` in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "mlip_assets", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def mlip(monkeypatch, capsys):
    """Run a command in this process, in the repository; give its status and output."""

    def run(*arguments, **environment):
        monkeypatch.chdir(ROOT)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # of argparse
            status = error.code
        output = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, output.out, output.err)

    return run


@pytest.mark.parametrize("mistake", MISTAKES)
def test_run_reports_a_mistake_before_computing(tmp_path, mistake):
    text, message = MISTAKES[mistake]
    (tmp_path / "broken.cif").write_text("no crystal")
    lines = "name: mine\n" + ("" if "composition" in text else "composition: Si\n") + text
    (tmp_path / "mine.yaml").write_text(lines)
    before = os.times()
    done = python_m("run", tmp_path / "mine.yaml", MLIP_DATA=str(tmp_path / "data"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "mine.yaml") in done.stderr
    assert not (tmp_path / "data").exists()
    after = os.times()
    cpu_s = sum(after[2:4]) - sum(before[2:4])  # wall time depends on the load of the machine
    assert cpu_s < 5


def test_run_suggests_a_campaign_of_a_similar_name(mlip):
    done = mlip("run", "quickstrat")
    assert done.returncode == 2
    assert "did you mean 'campaigns/quickstart.yaml'" in done.stderr


def test_package_requires_a_promoted_model(mlip, tmp_path):
    done = mlip("package", "quickstart", MLIP_DATA=str(tmp_path))
    assert done.returncode == 2
    assert "campaign 'quickstart' has no promoted model" in done.stderr
    assert "mlip run quickstart" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (
            "exclude_labelled_in: [silver]",
            "sampling.exclude_labelled_in: campaign 'silver' has no labels",
        ),
        ("pca_from: silver", "sampling.pca_from: campaign 'silver' has no embedding"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_check_and_run_report_missing_earlier_results(mlip, tmp_path, command, sampling, message):
    (tmp_path / "onward.yaml").write_text(
        f"name: onward\ncomposition: Si\nsampling: {{{sampling}}}\n", encoding="utf-8"
    )
    done = mlip(command, tmp_path / "onward.yaml", MLIP_DATA=str(tmp_path / "data"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_check_prints_the_planned_computation(mlip):
    done = mlip("check", "quickstart")
    assert done.returncode == 0, done.stderr
    assert "sampling     40 of" in done.stdout
    assert "descriptors  252 features per frame\n" in done.stdout


def test_check_suggests_compression_of_long_descriptors(mlip, tmp_path):
    text = "name: salt\ncomposition: NaCl\ndescriptors: {n_max: 14, l_max: 14}\n"
    (tmp_path / "salt.yaml").write_text(text, encoding="utf-8")
    done = mlip("check", tmp_path / "salt.yaml")
    assert done.returncode == 0, done.stderr
    assert "descriptors  6090 features per frame; descriptors.compression reduces" in done.stdout


def test_show_prints_a_valid_campaign_file(mlip, tmp_path):
    shown = mlip("show", "quickstart").stdout
    (tmp_path / "quickstart.yaml").write_text(shown, encoding="utf-8")
    assert mlip("show", tmp_path / "quickstart.yaml").stdout == shown


def test_version_is_that_of_the_package(mlip):
    assert mlip("--version").stdout == f"mlip {version('mlip-autopipe')}\n"


@pytest.mark.parametrize("command", ["init", *CAMPAIGN_COMMANDS, "ui"])
def test_help_describes_each_command(mlip, command):
    assert command in mlip("--help").stdout
    shown = mlip(command, "--help")
    assert shown.returncode == 0
    assert f"usage: mlip {command}" in shown.stdout


@pytest.mark.parametrize("arguments", [(), ("rnu", "quickstart"), ("ui", "--port", "many")])
def test_wrong_arguments_give_status_2(mlip, arguments):
    done = mlip(*arguments)
    assert done.returncode == 2
    assert "usage: mlip" in done.stderr
