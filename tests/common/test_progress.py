"""Progress is told with rate and time to go, and not too often."""

import logging

from mlip_assets.common.progress import Progress, Standing


def test_sentences(caplog):
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


def test_figures_are_told_as_often_as_sentences_and_what_was_done_before_is_no_speed():
    now, told = [0.0], []
    progress = Progress(
        "SOAP", 100, "frames", every_s=10, on_told=told.append, clock=lambda: now[0]
    )
    progress.skip(40)
    for _ in range(60):
        now[0] += 0.5
        progress.advance()
    assert [standing.done for standing in told] == [60, 80, 100]
    assert told[0] == Standing("SOAP", "frames", 60, 100, told[0].rate_per_s)
    assert abs(told[0].rate_per_s - 2) < 0.15
    assert abs(told[0].remaining_s - 20) < 1.5
    assert told[-1].remaining_s == 0
    assert progress.already_done == 40


def test_what_the_last_unit_was_like_is_told_with_the_rest():
    told = []
    progress = Progress("training", 3, "epochs", every_s=0, on_told=told.append)
    progress.advance(loss=0.123456)
    progress.advance()
    assert told[0].figures == {"loss": 0.123456}
    assert str(told[0]).startswith("training: 1/3 epochs (33 %), loss 0.1235, ")
    assert told[1].figures == {}


def test_without_anything_done_there_is_no_rate():
    told = []
    Progress("SOAP", 10, "frames", on_told=told.append).skip(10)
    assert [str(standing) for standing in told] == ["SOAP: 10/10 frames (100 %)"]
    assert told[0].remaining_s is None


def test_what_ends_before_its_time_is_told_once():
    told = []
    progress = Progress("training", 10, "epochs", every_s=1e9, on_told=told.append)
    progress.advance(4)
    progress.end()
    progress.advance(6)
    progress.end()
    assert [standing.done for standing in told] == [4, 10]
