"""Blocking checks: a failed one ends the run before a DFT call; others are only reported."""

import re
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from mlip_assets.assets import selected_frames as selection
from mlip_assets.assets.contract import MAX_KEY_LENGTH, campaign_partitions, check, pipeline_asset
from mlip_assets.definitions import defs

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"
GRAPH = defs.resolve_asset_graph()


def test_checks_page_lists_every_check_and_whether_it_blocks():
    row = r"^\| `(\w+)` \| `(\w+)` \|.*\| (yes|no) \|"
    listed = {
        (asset, name): blocking == "yes"
        for asset, name, blocking in re.findall(row, DOCS.read_text(encoding="utf-8"), re.M)
    }
    defined = {
        (key.asset_key.path[-1], key.name): GRAPH.get(key).blocking
        for key in GRAPH.asset_check_keys
    }
    assert listed == defined


@pytest.mark.usefixtures("copper")
def test_failed_exact_count_stops_the_run_before_any_dft_call(copper_project, monkeypatch):
    def one_frame_less(*args, **settings):
        chosen = select(*args, **settings)
        return replace(chosen, indices=chosen.indices[1:], reasons=chosen.reasons[1:])

    select = selection.select_frames
    monkeypatch.setattr(selection, "select_frames", one_frame_less)
    copper_project.write("blocked", more="random_seed: 7")
    calls = copper_project.n_calls()
    result = copper_project.materialize("blocked")
    assert not result.success
    assert _failed_checks(result) >= {"exact_count"}
    assert len(result.asset_materializations_for_node("selected_frames")) == 1
    assert result.asset_materializations_for_node("labelled_db") == []
    assert copper_project.n_calls() == calls
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert failure.step_key == "selected_frames"
    assert "exact_count" in failure.step_failure_data.error.message


@pytest.mark.usefixtures("copper")
def test_failed_better_than_random_does_not_stop_the_run(copper_project, monkeypatch):
    def farther_than_random(*args, **settings):
        report = measure(*args, **settings)
        p99 = report.random_mean.distance_p99 + 1
        return replace(report, selection=replace(report.selection, distance_p99=p99))

    measure = selection.measure_coverage
    monkeypatch.setattr(selection, "measure_coverage", farther_than_random)
    copper_project.write("reported")
    result = copper_project.materialize("reported")
    assert result.success
    assert _failed_checks(result) == {"better_than_random"}
    assert len(result.asset_materializations_for_node("labelled_db")) == 1


def test_blocking_check_stores_the_value_and_is_not_retried():
    attempts = []

    @pipeline_asset(
        group="exploration",
        kinds={"ase"},
        io_manager="io_manager",
        code_version="1",
        blocking_checks=[("never", "fails always")],
    )
    def refused(context: dg.AssetExecutionContext) -> dg.MaterializeResult[int]:
        """First line.

        Second paragraph.
        """
        attempts.append(context.run.run_id)
        return dg.MaterializeResult(
            value=1,
            metadata={"x": 0.36573, "rows": dg.MetadataValue.table([dg.TableRecord({"a": 1})])},
            check_results=[check("never", False, why=12.3456)],
        )

    @dg.asset(partitions_def=campaign_partitions)
    def downstream(refused):
        attempts.append("downstream")

    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("campaign", ["copper"])
    result = dg.materialize(
        [refused, downstream],
        partition_key="copper",
        instance=instance,
        raise_on_error=False,
        resources={"io_manager": dg.mem_io_manager},
    )
    assert not result.success
    assert len(attempts) == 1
    (made,) = result.asset_materializations_for_node("refused")
    assert list(made.metadata)[:3] == ["x", "wall_s", "rows"]
    assert made.metadata["x"].value == 0.366
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.metadata["why"].value == 12.3
    spec = refused.get_asset_spec()
    assert spec.description == "First line.\n\nSecond paragraph."
    (source,) = spec.metadata["dagster/code_references"].code_references
    assert source.file_path == __file__
    assert source.line_number < refused_line(source) < source.line_number + 12


def refused_line(source) -> int:
    """Line of the function ``refused`` in this file."""
    lines = Path(source.file_path).read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if "def refused(" in line)


@pytest.mark.usefixtures("copper")
def test_metadata_keys_fit_the_key_column_of_the_ui(copper_project):
    made = copper_project.run("copper")
    too_long = [k for metadata in made.values() for k in metadata if len(k) > MAX_KEY_LENGTH]
    assert too_long == []
    assert {next(iter(metadata)) for name, metadata in made.items() if metadata.get("picture")} == {
        "picture"
    }
    assert sum("picture" in metadata for metadata in made.values()) == 5


def _failed_checks(result) -> set[str]:
    return {c.check_name for c in result.get_asset_check_evaluations() if not c.passed}
