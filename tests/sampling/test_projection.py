"""Projection of frames on fitted components."""

import numpy as np
from ase.build import bulk

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.sampling import fit_embedding, project_frames

SETTINGS = DescriptorSettings(r_cut=4.0, n_max=3, l_max=2, average="inner")


def frame(seed):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_project_frames_of_pool_equals_embedding():
    frames = [frame(seed) for seed in range(20)]
    descriptors = soap_power_spectrum(
        np.stack([atoms.positions for atoms in frames]),
        frames[0].cell.array,
        frames[0].pbc,
        frames[0].numbers,
        species=["Na", "Cl"],
        **SETTINGS.soap_arguments(),
    )
    embedding = fit_embedding(descriptors.astype(np.float32))
    scores = project_frames(frames[::3], embedding.pca, SETTINGS, ["Na", "Cl"])
    assert np.allclose(scores, embedding.scores[::3], atol=1e-4 * embedding.pca.radius)
    none = project_frames([], embedding.pca, SETTINGS, ["Na", "Cl"])
    assert none.shape == (0, embedding.scores.shape[1])
