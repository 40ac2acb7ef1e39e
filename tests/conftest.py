"""What more than one folder of tests needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

#: Two atoms, as crystal and as molecule, at a cut-off too low for physics: about a minute in all.
TINY_CAMPAIGN = """\
name: {name}
composition: Si
seeds:
  kinds: [crystal, cluster]
  crystal_atoms: 2
  cluster_atoms: 2
exploration:
  temperatures_K: [300, 1500]
  n_steps: 60
  sample_every: 2
descriptors:
  n_max: 4
  l_max: 3
sampling:
  n_samples: 8
labelling:
  cutoff_eV: 150
  k_spacing_per_A: 1.5
training:
  max_epochs: 8
  committee: 1
  trial_steps: 100
"""


@pytest.fixture(scope="session")
def tiny_campaign() -> Callable[..., Path]:
    """``tiny_campaign(folder, name)`` writes a campaign that a test can afford."""

    def write(folder: Path, name: str = "tiny") -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(TINY_CAMPAIGN.format(name=name), encoding="utf-8")
        return path

    return write
