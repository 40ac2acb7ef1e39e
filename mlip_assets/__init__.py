"""From a two-line campaign file to a trained MACE potential, as Dagster assets."""
