"""The wiring: names, groups, storage and contracts stay what they were promised to be."""

import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlip_assets.definitions import defs

ROOT = Path(__file__).parents[2]
GRAPH = defs.resolve_asset_graph()
GROUPS = {
    "seeds": "exploration",
    "surrogate_trajectory": "exploration",
    "descriptor_matrix": "selection",
    "pca_embedding": "selection",
    "clusters": "selection",
    "selected_frames": "selection",
    "labelled_db": "learning",
    "model": "learning",
    "model_report": "learning",
}


def test_definitions_have_nine_assets_in_three_groups():
    found = {key.path[-1]: GRAPH.get(key).group_name for key in GRAPH.get_all_asset_keys()}
    assert found == GROUPS


@pytest.mark.parametrize("name", GROUPS)
def test_definitions_describe_every_asset(name):
    node = GRAPH.get(dg.AssetKey(name))
    assert node.description
    assert node.owners
    assert node.kinds
    assert node.code_version
    assert node.partitions_def.name == "campaign"
    assert defs.resources[node.metadata.get("io_manager", None) or _io_manager(name)] is not None
    assert [key for key in GRAPH.asset_check_keys if key.asset_key == node.key]


def _io_manager(name):
    asset = next(a for a in defs.assets if a.key == dg.AssetKey(name))
    key = asset.get_io_manager_key_for_asset_key(asset.key)
    assert key != "io_manager", "the default IO manager pickles"
    return key


def test_definitions_load_without_warnings_of_this_project():
    code = "import warnings; warnings.simplefilter('error'); import mlip_assets.definitions as d; d.defs.resolve_all_job_defs()"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_definitions_load_no_heavy_library():
    code = (
        "import sys, mlip_assets.definitions;"
        "print([m for m in ('torch', 'mace', 'sklearn', 'dscribe', 'matplotlib') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_instance_and_workspace_files():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert instance["telemetry"] == {"enabled": False}
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    location = workspace["load_from"][0]["python_module"]
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert location["location_name"] == project["code_location_name"]
    assert location["module_name"] == project["code_location_target_module"]
