"""A MACE potential from an extxyz file with REF_energy (eV), REF_forces (eV/Å), REF_stress (eV/Å³).

Run ``label_with_emt.py`` first, or give the path of another file with labels.
"""

import sys
from pathlib import Path

from ase.io import read

from mlip_assets import TrainingSettings, fit_mace

path = sys.argv[1] if len(sys.argv) > 1 else "labels/labels.extxyz"
isolated_energies, frames = {}, []
for atoms in read(path, ":"):
    if atoms.info.get("config_type") == "IsolatedAtom":
        isolated_energies[atoms.get_chemical_formula()] = atoms.info["REF_energy"]
    else:
        frames.append(atoms)

# Small and short, to run in seconds; the defaults of TrainingSettings are for real work.
settings = TrainingSettings(
    start_from="scratch", num_channels=8, r_max=4.0, max_epochs=20, learning_rate=0.02, committee=1
)
model = fit_mace(frames, isolated_energies, settings, work_dir=Path("training"), seed=0)
errors = model.to_dataframe()
columns = ["split", "predictor", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A"]
print(errors.loc[errors["group"] == "all", columns].round(1).to_string(index=False))
print(f"potential: {model.model_file}")  # MACECalculator(model_paths=...) reads it
