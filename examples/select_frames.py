"""DIRECT on your own descriptors: the frames to label, and how much of all frames they cover."""

import numpy as np

from mlip_assets import direct_select, measure_coverage

# Any array (n_frames, n_features) of floating-point numbers. Here: three phases, one of them rare.
random = np.random.default_rng(0)
phase = np.repeat(["solid", "liquid", "vapour"], [700, 290, 10])
centres = np.repeat([[0, 0, 0], [25, 0, 0], [0, 25, 15]], [700, 290, 10], axis=0)
descriptors = (centres + random.normal(size=(1000, 3))) @ random.normal(size=(3, 12))

selection = direct_select(descriptors, n_samples=40)
table = selection.to_dataframe()
table["phase"] = phase[selection.indices]
print(table[["row", "cluster", "phase", "reason"]].head().to_string(index=False))
print("selected of each phase:", table["phase"].value_counts().to_dict())

coverage = measure_coverage(selection.embedding, selection.indices, seed=0)
mean, deviation = coverage.random_mean.score, coverage.random_sd.score
print(f"coverage of the selection  {coverage.selection.score:.2f}")
print(f"of random selections       {mean:.2f} ± {deviation:.2f}")
table.to_csv("selected.csv", index=False)
