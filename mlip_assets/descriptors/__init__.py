"""SOAP descriptors: of arrays of frames, and of a whole trajectory on disk."""

from __future__ import annotations

from mlip_assets.descriptors.computation import compute_descriptors, size_message
from mlip_assets.descriptors.frame_runs import FrameSource
from mlip_assets.descriptors.frames import n_soap_features
from mlip_assets.descriptors.matrix import DescriptorMatrix, descriptor_schema
from mlip_assets.descriptors.soap import soap_power_spectrum

__all__ = [
    "DescriptorMatrix",
    "FrameSource",
    "compute_descriptors",
    "descriptor_schema",
    "n_soap_features",
    "size_message",
    "soap_power_spectrum",
]
