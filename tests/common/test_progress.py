"""Progress reports units done, rate and time remaining, at the given interval."""

import logging

from mlip_assets.common.progress import Progress, ProgressReport


def test_progress_logs_done_rate_and_eta_once_per_interval(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    progress = Progress("MD", 100, "steps", already_done=20, every_s=5, clock=lambda: now[0])
    for _ in range(80):
        now[0] += 0.5
        progress.advance()
    lines = [record.message for record in caplog.records]
    assert lines[0] == "MD: resuming, 20 of 100 steps already done"
    assert lines[1] == "MD: 30/100 steps (30 %), 2.0 steps/s, ETA 0:35"
    assert lines[-1] == "MD: 100/100 steps (100 %), 2.0 steps/s, ETA 0:00"
    assert len(lines) == 1 + 8


def test_progress_excludes_skipped_units_from_rate():
    now: list[float] = [0.0]
    reports: list[ProgressReport] = []
    progress = Progress(
        "SOAP", 100, "frames", every_s=10, on_progress=reports.append, clock=lambda: now[0]
    )
    progress.skip(40)
    for _ in range(60):
        now[0] += 0.5
        progress.advance()
    assert [report.done for report in reports] == [60, 80, 100]
    assert reports[0] == ProgressReport("SOAP", "frames", 60, 100, reports[0].rate_per_s)
    assert abs(reports[0].rate_per_s - 2) < 0.15
    assert abs(reports[0].remaining_s - 20) < 1.5
    assert reports[-1].remaining_s == 0
    assert progress.already_done == 40


def test_progress_reports_metrics_of_last_unit():
    reports: list[ProgressReport] = []
    progress = Progress("training", 3, "epochs", every_s=0, on_progress=reports.append)
    progress.advance(loss=0.123456)
    progress.advance()
    assert reports[0].metrics == {"loss": 0.123456}
    assert str(reports[0]).startswith("training: 1/3 epochs (33 %), loss 0.1235, ")
    assert reports[1].metrics == {}


def test_progress_has_no_rate_before_first_unit():
    reports: list[ProgressReport] = []
    Progress("SOAP", 10, "frames", on_progress=reports.append).skip(10)
    assert [str(report) for report in reports] == ["SOAP: 10/10 frames (100 %)"]
    assert reports[0].remaining_s is None


def test_progress_reports_early_end_once():
    reports: list[ProgressReport] = []
    progress = Progress("training", 10, "epochs", every_s=1e9, on_progress=reports.append)
    progress.advance(4)
    progress.end()
    progress.advance(6)
    progress.end()
    assert [report.done for report in reports] == [4, 10]
