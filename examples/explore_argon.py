"""Exploration of a campaign without Dagster: molecular dynamics of its seeds, frames as a table."""

from pathlib import Path

from mlip_assets import explore, load_campaign

campaign_file = Path("argon.yaml")
campaign_file.write_text("""\
name: argon
composition: Ar
seeds: {kinds: [crystal, vacancy, cluster], crystal_atoms: 32, cluster_atoms: 20}
exploration:
  surrogate: lennard-jones
  temperatures_K: [30, 90]
  n_steps: 200
  sample_every: 10
sampling: {n_samples: 20}
training: {start_from: scratch}
""")

campaign = load_campaign(campaign_file)
trajectory = explore(campaign, "frames")  # started again, it resumes or only reads
print(f"{trajectory.n_frames} frames of {len(trajectory.walkers)} walkers")

table = trajectory.to_dataframe(["walker", "time_fs", "temperature_K", "energy_eV"])
print(table.groupby("walker")[["temperature_K", "energy_eV"]].mean().round(2).to_string())
n_frames = trajectory.export("argon.extxyz")  # energies and forces included
print(f"argon.extxyz: {n_frames} frames")
