"""Projection of frames from outside the pool, such as labelled ones, on fitted components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.sampling.pca import PrincipalComponents


def project_frames(
    frames: Sequence[Atoms],
    pca: PrincipalComponents,
    settings: DescriptorSettings,
    species: Sequence[str],
) -> NDArray[np.float64]:
    """Scores (n_frames, n_components) of frames, such as labelled ones of another campaign.

    Parameters
    ----------
    frames
        Structures of any size.
    pca
        Fitted to descriptors with these ``settings`` and ``species``.
    settings, species
        SOAP hyper-parameters, and the chemical symbols that the features distinguish.
    """
    scores = np.empty((len(frames), len(pca.components_)))
    for row, atoms in enumerate(frames):
        descriptor = soap_power_spectrum(
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            atoms.numbers,
            species=species,
            **settings.soap_arguments(),
        )
        scores[row] = pca.transform(descriptor.astype(np.float32))[0]  # float32 as on disk
    return scores
