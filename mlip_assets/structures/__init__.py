"""Starting structures: tabulated crystals and molecules, and the seeds of a campaign.

:mod:`~mlip_assets.structures.seeds` reads the campaign; the other modules build one kind of
structure each, independent of campaigns.
"""

from __future__ import annotations

from mlip_assets.structures.alloys import parent_lattice
from mlip_assets.structures.molecules import find_molecule
from mlip_assets.structures.prototypes import find_prototype
from mlip_assets.structures.seeds import build_seeds

__all__ = ["build_seeds", "find_molecule", "find_prototype", "parent_lattice"]
