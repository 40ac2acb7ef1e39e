"""One module per asset of the pipeline, named like the asset."""

#: Groups of assets, in the order of the pipeline.
GROUPS = ("exploration", "selection", "learning")

#: Path in the UI of the lineage with all groups expanded. Groups are collapsed by default, which no
#: setting of the server changes; the page reads the expanded ones from its address.
LINEAGE_PATH = "/asset-groups?expanded=" + ",".join(f"global@global:{name}" for name in GROUPS)
