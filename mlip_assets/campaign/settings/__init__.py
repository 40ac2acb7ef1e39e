"""The settings of a campaign: one module per section of its YAML file."""
