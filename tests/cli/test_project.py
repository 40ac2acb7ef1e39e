"""``mlip init``, the project folder it writes, and ``mlip ui`` in it."""

import os
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from mlip_assets.cli import main, project
from mlip_assets.surrogates import load_campaign

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new project folder, which is the working folder; no variable of the user is set."""
    for name in ("DAGSTER_HOME", "MLIP_CAMPAIGNS", "MLIP_DATA", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # restored at the end, also if the command sets it
        monkeypatch.delenv(name)
    folder = tmp_path / "my-project"
    assert main(["init", str(folder)]) == 0
    monkeypatch.chdir(folder)
    return folder


def test_init_writes_the_files_of_a_project(folder):
    written = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert written == set(project.TEMPLATE.values())


def test_init_writes_every_file_of_the_template():
    template = Path(str(files("mlip_assets.cli") / "template"))
    found = {str(file.relative_to(template)) for file in template.rglob("*") if file.is_file()}
    assert found == set(project.TEMPLATE)


def test_init_writes_a_valid_campaign(folder):
    assert load_campaign(folder / "campaigns" / "silicon.yaml").composition == "Si"
    assert main(["check", "silicon"]) == 0


def test_init_example_settings_are_valid_when_uncommented(folder):
    file = folder / "campaigns" / "silicon.yaml"
    head, commented = file.read_text(encoding="utf-8").split("# Some settings to change")
    settings = yaml.safe_load(
        "\n".join(line.removeprefix("# ") for line in commented.splitlines()[1:])
    )
    settings["seeds"].pop("files")  # a file of the user
    head = yaml.safe_load(head)
    head["labelling"] |= settings.pop("labelling")
    file.write_text(yaml.safe_dump(head | settings), encoding="utf-8")
    assert load_campaign(file).random_seed == 1


@pytest.mark.parametrize("name", ["campaigns", "dagster.yaml", ".gitignore"])
def test_init_refuses_a_folder_that_has_one_of_its_files(tmp_path, capsys, name):
    existing = tmp_path / name
    existing.write_text("mine", encoding="utf-8")
    assert main(["init", str(tmp_path)]) == 2
    assert f"{existing} exists already" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert existing.read_text(encoding="utf-8") == "mine"


def test_init_refuses_a_file(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "is a file; give the name of a folder" in capsys.readouterr().err


def test_init_writes_into_an_existing_folder_without_these_files(tmp_path):
    (tmp_path / "structure.cif").touch()
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "workspace.yaml").is_file()


def test_dagster_yaml_of_a_project_is_that_of_the_repository_without_paths(folder):
    """The instance of the repository stores its history under .dagster/."""
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    for section in ("storage", "local_artifact_storage", "compute_logs"):
        del ours[section]
    assert yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8")) == ours


def test_set_environment_makes_paths_absolute(folder, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", ".")
    monkeypatch.setenv("MLIP_DATA", "results")
    assert project.set_environment() == folder
    assert os.environ["DAGSTER_HOME"] == str(folder)
    assert os.environ["MLIP_DATA"] == str(folder / "results")
    assert os.environ["MLIP_CAMPAIGNS"] == str(folder / "campaigns")


def test_run_refuses_a_dagster_home_that_is_no_folder(folder, monkeypatch, capsys):
    monkeypatch.setenv("DAGSTER_HOME", "missing")
    assert main(["run", "silicon"]) == 2
    assert f"DAGSTER_HOME: {folder / 'missing'} is not a folder" in capsys.readouterr().err


def test_ui_refuses_a_folder_that_is_no_project(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for name in ("MLIP_CAMPAIGNS", "MLIP_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    assert main(["ui"]) == 2
    assert f"{tmp_path / 'workspace.yaml'} does not exist" in capsys.readouterr().err
