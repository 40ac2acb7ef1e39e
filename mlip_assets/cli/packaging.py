"""``mlip package``: the promoted model of a campaign as one folder."""

from __future__ import annotations

import sys

from mlip_assets.cli.inspection import read_campaign
from mlip_assets.cli.project import data_folder
from mlip_assets.cli.summary import short_path


def package_campaign(name: str) -> int:
    """Write the package and print its files with their sizes."""
    campaign, _ = read_campaign(name)

    from mlip_assets.assets.model import HELD_OUT_NAME
    from mlip_assets.evaluation import ModelReport
    from mlip_assets.labelling import LabelledDatabase
    from mlip_assets.release import PromotedModels, write_package
    from mlip_assets.release.promotion import LABELS_FOLDER, PROMOTED_FOLDER, REPORT_FOLDER
    from mlip_assets.training import HeldOut

    data = data_folder() / campaign.name
    try:
        model, promotion = PromotedModels(data / PROMOTED_FOLDER).in_use()
        kept = model.model_file.parent
        labels = LabelledDatabase.open(kept / LABELS_FOLDER)
        packed = write_package(
            data / "package",
            campaign,
            model,
            ModelReport.open(kept / REPORT_FOLDER),
            labels.labelled,
            labels.isolated,
            HeldOut.open(data / HELD_OUT_NAME),
        )
    except FileNotFoundError as error:
        print(
            f"error: campaign '{campaign.name}' has no promoted model ({error}); run the campaign "
            f"first (mlip run {campaign.name})",
            file=sys.stderr,
        )
        return 2
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"promoted because {promotion.reason}")
    for file in sorted(packed.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:>12,} B  {short_path(str(file))}")
    return 0
