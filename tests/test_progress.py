"""Progress is told with rate and time to go, and not too often."""

import logging

from mlip_assets.progress import Progress


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
