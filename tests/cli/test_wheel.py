"""The wheel, installed in an environment that cannot import the repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

TINY = """\
name: tiny
composition: Ar
seeds: {kinds: [cluster], cluster_atoms: 4}
exploration:
  temperatures_K: [20]
  n_steps: 40
  sample_every: 2
  replicas: 2
descriptors: {implementation: dscribe, n_max: 4, l_max: 3} # compiles no kernels
sampling: {n_samples: 4}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", "--wheel-dir", str(folder), str(ROOT), cwd=folder,
    )  # fmt: skip
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new virtual environment with the wheel; dependencies are those of the present one.

    A line of a ``.pth`` file adds a folder, but does not read the ``.pth`` files inside. The
    editable installation of the repository is therefore not importable.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    _run(
        sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet",
        "--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check", str(wheel),
        cwd=folder,
    )  # fmt: skip
    return folder


def test_wheel_contains_typing_marks_weights_and_templates(environment, tmp_path):
    program = (
        "import io_managers, mlip_assets, resources\n"
        "from pathlib import Path\n"
        "for package in (mlip_assets, resources, io_managers):\n"
        "    folder = Path(package.__file__).parent\n"
        "    print(folder)\n"
        "    assert (folder / 'py.typed').is_file()\n"
        "from mlip_assets.cli.project import TEMPLATE, _template\n"
        "assert all(_template(name).is_file() for name in TEMPLATE)\n"
        "from mlip_assets.surrogates.models.bundled import BUNDLED_FOLDER\n"
        "assert len(list(BUNDLED_FOLDER.iterdir())) > 1\n"
    )
    printed = _run(str(environment / "bin" / "python"), "-c", program, cwd=tmp_path)
    folders = [Path(line) for line in printed.splitlines()]
    assert len(folders) == 3
    assert all(folder.is_relative_to(environment) for folder in folders)


def test_wheel_runs_the_command_in_an_empty_folder(environment, tmp_path):
    mlip = str(environment / "bin" / "mlip")
    assert _run(mlip, "--version", cwd=tmp_path).startswith("mlip ")
    _run(mlip, "init", "project", cwd=tmp_path)
    project = tmp_path / "project"
    assert "campaign silicon: Si" in _run(mlip, "check", "silicon", cwd=project)
    (project / "campaigns" / "tiny.yaml").write_text(TINY, encoding="utf-8")
    assert "composition: Ar" in _run(mlip, "show", "tiny", cwd=project)
    assert "frames selected   4" in _run(mlip, "explore", "tiny", cwd=project)
    assert (project / "data" / "tiny" / "selected_frames.extxyz").is_file()
    assert not (project / "data" / "tiny" / "labelled_db").exists()
    assert (project / "history").is_dir()  # of the project's own Dagster instance


def _run(*command: str, cwd: Path) -> str:
    """Standard output of a command; variables that name folders or imports are not inherited."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLIP_", "DAGSTER_", "PYTHON"))
    }
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
