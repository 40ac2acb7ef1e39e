"""The registry of surrogates: from the name in a campaign to weights on devices."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mlip_assets.campaign import BUNDLED_SURROGATE, OWN_SURROGATE, Campaign, CampaignError, load
from mlip_assets.compute.devices import DeviceError, find_devices
from mlip_assets.surrogates.committee import make_committee
from mlip_assets.surrogates.models import chgnet, lennard_jones, m3gnet, mace
from mlip_assets.surrogates.surrogate import Surrogate, SurrogateError

_log = logging.getLogger(__name__)

Finder: TypeAlias = Callable[..., Surrogate]

#: Part of a name before a colon -> function that finds the weights. Other names are MACE files.
FINDERS: dict[str, Finder] = {
    "chgnet": chgnet.find,
    "m3gnet": m3gnet.find,
    "lennard-jones": lennard_jones.find,
    **dict.fromkeys([BUNDLED_SURROGATE, *mace.MACE_TORCH_NAMES], mace.find),
}


def find_surrogate(
    names: str | Sequence[str],
    *,
    device: str,
    dtype: str,
    sha256: str | Sequence[str] | None = None,
    own_model: mace.TrainedFiles | None = None,
) -> Surrogate:
    """Resolve a name or path to weights on devices; no other model is ever used instead.

    Parameters
    ----------
    names
        ``bundled``, one of ``NAMED_SURROGATES``, ``own-model`` or the path of a MACE file; a sequence
        of these is a committee.
    device
        As in :func:`mlip_assets.compute.devices.find_devices`.
    dtype
        ``float32`` or ``float64``.
    sha256
        Expected hash of the weights; for a committee, one per member.
    own_model
        The model that ``own-model`` refers to: the one that the campaign has promoted.

    Raises
    ------
    SurrogateError
        No such model, no such device, a missing package, a failed download, or another hash than
        expected.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from mlip_assets import find_surrogate
    >>> surrogate = find_surrogate("lennard-jones", device="cpu", dtype="float64")
    >>> atoms = bulk("Ar", cubic=True)
    >>> atoms.calc = surrogate.calculator()
    >>> print(f"{atoms.get_potential_energy() / len(atoms):.2f} eV/atom")
    -0.08 eV/atom
    """
    if not isinstance(names, str):
        hashes = [None] * len(names) if sha256 is None or isinstance(sha256, str) else sha256
        return make_committee(
            [
                find_surrogate(
                    name,
                    device=device,
                    dtype=dtype,
                    sha256=one,
                    own_model=own_model,
                )
                for name, one in zip(names, hashes, strict=True)
            ]
        )
    try:
        devices = find_devices(device, "exploration.device")
    except DeviceError as error:
        raise SurrogateError(str(error)) from error
    if names == OWN_SURROGATE:
        if own_model is None:
            raise SurrogateError(
                f"exploration.surrogate: '{OWN_SURROGATE}' is defined only within a campaign"
            )
        surrogate: Surrogate = mace.own_model(own_model, devices=devices, dtype=dtype)
    else:
        find = FINDERS.get(names.partition(":")[0], mace.find)
        surrogate = find(names, devices=devices, dtype=dtype)
    if sha256 is not None and surrogate.sha256 != sha256:
        raise SurrogateError(
            f"exploration.surrogate_sha256: '{names}' hashes to {surrogate.sha256}, the campaign "
            f"expects {sha256}; use the file with that hash, or update the hash"
        )
    _log.info(
        "surrogate %s (sha256 %s…) on %s, %s",
        surrogate.name,
        surrogate.sha256[:12],
        ", ".join(devices),
        dtype,
    )
    return surrogate


def campaign_surrogate(
    campaign: Campaign,
    *,
    names: str | Sequence[str] | None = None,
    device: str | None = None,
    own_model: mace.TrainedFiles | None = None,
) -> Surrogate:
    """Resolve the surrogate of a campaign, and check that it supports all elements.

    Parameters
    ----------
    names, device
        Replace those of the campaign.
    own_model
        As in :func:`find_surrogate`.

    Raises
    ------
    SurrogateError
        As :func:`find_surrogate`, or the surrogate lacks an element of the campaign.
    """
    settings = campaign.exploration
    surrogate = find_surrogate(
        names or settings.surrogate,
        device=device or settings.device,
        dtype=settings.dtype,
        sha256=None if names else settings.surrogate_sha256,
        own_model=own_model,
    )
    surrogate.require_elements(campaign.elements)
    return surrogate


def load_campaign(path: str | os.PathLike[str]) -> Campaign:
    r"""Load a campaign file, and check elements and packages of its surrogates.

    No weights are loaded or downloaded.

    Raises
    ------
    CampaignError
        As :func:`mlip_assets.campaign.load`, or a surrogate lacks an element or its package.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mlip_assets import load_campaign
    >>> _ = Path("silicon.yaml").write_text("name: silicon\ncomposition: Si\n")
    >>> campaign = load_campaign("silicon.yaml")
    >>> campaign.elements, campaign.exploration.temperatures_K
    (('Si',), (300.0, 1200.0))
    """
    campaign = load(path)
    for name in campaign.exploration.surrogates:
        if name in {BUNDLED_SURROGATE, "chgnet", "lennard-jones"} or name.startswith("m3gnet:"):
            try:
                surrogate = FINDERS[name.partition(":")[0]](
                    name, devices=("cpu",), dtype=campaign.exploration.dtype
                )
                surrogate.require_elements(campaign.elements)
            except SurrogateError as error:
                raise CampaignError(f"{path}: {error}") from error
    return campaign
