"""The package of a campaign: model, exports, model card, data and report in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase import Atoms
from ase.io import write

from mlip_assets.campaign import Campaign
from mlip_assets.common.files import fsync_folder, sha256_of_file, write_text
from mlip_assets.evaluation.report import ModelReport
from mlip_assets.release.card import model_card
from mlip_assets.release.lammps import export_lammps
from mlip_assets.training.labels import dataset_sha256, structure_sha256
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.splits import HeldOut

ASE_SNIPPET = '''"""{name}: relax a structure and run molecular dynamics. Needs mace-torch and ASE."""

import sys
from pathlib import Path

from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from mace.calculators import MACECalculator

here = Path(__file__).parent
calculator = MACECalculator(  # the file is a pickle: use files from trusted sources only
    model_paths=str(here / "{name}.model"), device="cpu", default_dtype="float32"
)
atoms = read(sys.argv[1]) if len(sys.argv) > 1 else read(here / "dataset.extxyz", -1)
atoms.calc = calculator
BFGS(atoms).run(fmax=0.05, steps=100)
print(f"energy {{atoms.get_potential_energy():.4f}} eV")
Langevin(atoms, 1 * units.fs, temperature_K=300, friction=0.01 / units.fs).run(100)
print(f"after 0.1 ps at 300 K: {{atoms.get_potential_energy():.4f}} eV")
'''


def write_package(
    folder: Path,
    campaign: Campaign,
    model: TrainedModel,
    report: ModelReport,
    labelled: Sequence[Atoms],
    isolated: Sequence[Atoms],
    held_out: HeldOut,
) -> Path:
    """Write the complete ``folder``, or nothing; an earlier folder is replaced.

    Parameters
    ----------
    folder
        Folder of the package, such as ``data/silicon/package``.
    campaign
        Gives the name of the files and ``campaign.yaml``.
    model, report
        The promoted model and its report.
    labelled, isolated
        The labels and isolated atoms it was trained on.
    held_out
        Record of the held-out frames, which have ``held_out=T`` in ``dataset.extxyz``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        The report or the labels belong to another model.
    ExportError
        The export for LAMMPS failed.
    """
    energies = {atom.get_chemical_formula(): atom.info["REF_energy"] for atom in isolated}
    if report.weights_sha256 != model.weights_sha256:
        raise ValueError("the report belongs to another model; materialize model_report again")
    if model.dataset_sha256 != dataset_sha256(labelled, energies):
        raise ValueError(
            "the labels are not those the model was trained on; materialize model and model_report "
            "again"
        )
    aside = folder.with_name(f".{folder.name}-writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    shutil.copyfile(model.model_file, aside / f"{campaign.name}.model")
    for number, member in enumerate(model.members, 1):
        shutil.copyfile(member, aside / f"{campaign.name}-committee-{number}.model")
    export_lammps(model.model_file, aside / f"{campaign.name}-lammps.pt", max(labelled, key=len))
    write(aside / "dataset.extxyz", [*isolated, *_marked(labelled, held_out)], format="extxyz")
    write_text(aside / "campaign.yaml", campaign.to_yaml())
    write_text(aside / "use_with_ase.py", ASE_SNIPPET.format(name=campaign.name))
    hashes = _hashes(aside)
    card = model_card(campaign, model, report, labelled, energies, hashes)
    write_text(aside / "MODEL_CARD.md", card)
    report.save(aside / "report")
    sums = "".join(f"{sha256}  {name}\n" for name, sha256 in _hashes(aside).items())
    write_text(aside / "SHA256SUMS", sums)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    fsync_folder(folder.parent)
    return folder


def _marked(labelled: Sequence[Atoms], held_out: HeldOut) -> list[Atoms]:
    marked = [frame.copy() for frame in labelled]
    for frame in marked:
        frame.info["held_out"] = structure_sha256(frame) in held_out.test
    return marked


def _hashes(folder: Path) -> Mapping[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files}
