"""Labels from a calculator: energies, forces and stresses, each computed once, in a ledger.

EMT takes the place of a DFT program here; ``GpawEngine`` or ``EspressoEngine`` is used the same way.
"""

from ase.build import bulk

from mlip_assets import EmtEngine, LabelLedger, label_frames

frames = []
for number in range(16):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell * (1 + 0.006 * (number - 8)), scale_atoms=True)
    atoms.rattle(0.08, seed=number)
    frames.append(atoms)

ledger = LabelLedger("ledger.db")
labels = label_frames(frames, EmtEngine(), ledger)
table = labels.to_dataframe()[["binding_energy_eV_per_atom", "max_force_eV_per_A", "pressure_GPa"]]
print(table.describe().loc[["min", "mean", "max"]].round(3).T.to_string())
print(f"{labels.n_calculated} calculations, {labels.n_reused} reused")

again = label_frames(frames, EmtEngine(), ledger)
print(f"second call: {again.n_calculated} calculations, {again.n_reused} reused")
labels.save("labels")  # labels/labels.extxyz, with the keys that MACE reads, and labels/labels.db
