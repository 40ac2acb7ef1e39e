"""SOAP descriptors: of arrays of frames, and of a whole trajectory on disk."""

from __future__ import annotations

from mlip_assets.descriptors.frames import n_soap_features
from mlip_assets.descriptors.matrix import (
    DescriptorMatrix,
    FrameSource,
    describe_size,
    describe_trajectory,
    descriptor_schema,
)
from mlip_assets.descriptors.soap import soap_power_spectrum

__all__ = [
    "DescriptorMatrix",
    "FrameSource",
    "describe_size",
    "describe_trajectory",
    "descriptor_schema",
    "n_soap_features",
    "soap_power_spectrum",
]
