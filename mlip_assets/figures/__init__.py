"""Every picture and table shown as metadata in the UI, by what it is of."""

from mlip_assets.figures.canvas import markdown, rounded, table
from mlip_assets.figures.descriptors import descriptor_plot, descriptor_table
from mlip_assets.figures.labels import failure_table, label_plot, label_table
from mlip_assets.figures.maps import (
    cluster_plot,
    cluster_table,
    component_table,
    coverage_table,
    embedding_plot,
    pick_table,
    selection_map,
)
from mlip_assets.figures.model import error_table, parity_plot, training_curve
from mlip_assets.figures.report import (
    comparison_table,
    crystal_table,
    learning_table,
    report_pictures,
    trial_table,
    uncertainty_table,
)
from mlip_assets.figures.seeds import seed_pictures, seed_table
from mlip_assets.figures.trajectory import guard_table, rdf_plot, trajectory_plot, walker_table

__all__ = [
    "cluster_plot",
    "cluster_table",
    "comparison_table",
    "component_table",
    "coverage_table",
    "crystal_table",
    "descriptor_plot",
    "descriptor_table",
    "embedding_plot",
    "error_table",
    "failure_table",
    "guard_table",
    "label_plot",
    "label_table",
    "learning_table",
    "markdown",
    "parity_plot",
    "pick_table",
    "rdf_plot",
    "report_pictures",
    "rounded",
    "seed_pictures",
    "seed_table",
    "selection_map",
    "table",
    "training_curve",
    "trajectory_plot",
    "trial_table",
    "uncertainty_table",
    "walker_table",
]
