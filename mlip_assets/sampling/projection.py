"""Frames from elsewhere on the axes of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.sampling.pca import PrincipalAxes


def project_frames(
    frames: Sequence[Atoms],
    axes: PrincipalAxes,
    settings: DescriptorSettings,
    species: Sequence[str],
) -> NDArray[np.float64]:
    """Scores (n_frames, n_components) of frames, such as labelled ones of another campaign.

    Parameters
    ----------
    axes
        Fitted to descriptors of these ``settings`` and ``species``.
    """
    scores = np.empty((len(frames), len(axes.components)))
    for row, atoms in enumerate(frames):
        descriptor = soap_power_spectrum(
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            atoms.numbers,
            species=species,
            **settings.soap_arguments(),
        )
        scores[row] = axes.project(descriptor.astype(np.float32))[0]  # rounded as those on disk
    return scores
