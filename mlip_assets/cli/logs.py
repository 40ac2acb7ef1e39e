"""Log lines of this project on the terminal."""

from __future__ import annotations

import logging
import sys


def log_to_terminal() -> None:
    """Print the log of ``mlip_assets`` and ``resources``, each line with the time of day."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    for name in ("mlip_assets", "resources"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False
