"""Paths of the values of assets: ``<root>/<campaign>/<asset>``."""

from __future__ import annotations

import re

import dagster as dg
from pydantic import Field
from upath import UPath

from mlip_assets.campaign import NAME_PATTERN
from mlip_assets.common.files import as_path, is_local


class Storage(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The root of everything the pipeline writes, on any fsspec file system."""

    root: str = Field(default="data", description="folder or URL, such as s3://bucket/mlip")

    def folder(self, campaign: str) -> UPath:
        """Folder of one campaign.

        Raises
        ------
        ValueError
            The key is not a campaign name; a key such as ``../x`` would leave the root.
        """
        if not re.match(NAME_PATTERN, campaign):
            raise ValueError(f"partition key '{campaign}' is not a campaign name ({NAME_PATTERN})")
        return as_path(self.root) / campaign

    def working_folder(self, campaign: str, asset: str) -> UPath:
        """Local folder for work in progress: checkpoints and part-files, which a later run resumes.

        Raises
        ------
        ValueError
            The root is remote: molecular dynamics and training append to local files.
        """
        folder = self.folder(campaign) / asset
        if not is_local(folder):
            raise ValueError(
                f"storage root '{self.root}' is remote; {asset} appends to files and needs a local "
                "root (mount the bucket, or use a local root and copy the results)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
