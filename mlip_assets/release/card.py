"""The model card: training data of a potential, its errors, and its domain of validity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms, units

from mlip_assets.campaign import Campaign
from mlip_assets.evaluation.report import ModelReport
from mlip_assets.training.labels import formation_energy
from mlip_assets.training.model import TrainedModel

G_PER_CM3 = units.kg / 1e3 / (units.m / 1e2) ** 3

_COLUMNS = {
    "force_rmse_meV_per_A": "force RMSE meV/Å",
    "force_mae_meV_per_A": "force MAE",
    "force_p99_meV_per_A": "force P99",
    "energy_rmse_meV_per_atom": "energy RMSE meV/atom",
    "energy_p99_meV_per_atom": "energy P99",
    "stress_rmse_GPa": "stress RMSE GPa",
}


def model_card(
    campaign: Campaign,
    model: TrainedModel,
    report: ModelReport,
    labelled: Sequence[Atoms],
    isolated_energies: dict[str, float],
    files: Mapping[str, str],
) -> str:
    """The card as Markdown; ``files`` are the SHA-256 of the files of the package, by name."""
    labelling = campaign.labelling
    sections = [
        f"# {campaign.name}: a MACE potential for {campaign.composition}",
        f"{_origin(campaign, model)} by mace-torch {version('mace-torch')} in the campaign "
        f"`{campaign.name}` of MLIP-AutoPipe {version('mlip-autopipe')}.",
        "## Domain of validity\n\n" + _domain(labelled, isolated_energies, model),
        "## Errors\n\nOn labels on which neither this model nor an earlier model of the campaign was "
        "trained, without near-duplicates of training frames:\n\n"
        + _errors(report)
        + "\n\n"
        + _physics(report)
        + _uncertainty(campaign.name, model),
        "## Training data\n\n"
        f"{len(labelled)} labels by {labelling.engine} ({labelling.xc}, {labelling.cutoff_eV:g} eV), "
        "of which "
        + ", ".join(f"{n} {kind}" for kind, n in _count(labelled, "seed_kind"))
        + ".\n\nEnergies of the isolated atoms with the same settings: "
        + ", ".join(f"{s} {e:.4f} eV" for s, e in isolated_energies.items())
        + ".\n\nAll settings are in `campaign.yaml`.",
        "## Hashes\n\n"
        f"- weights: `{model.weights_sha256}`\n- labels: `{model.dataset_sha256}`\n"
        + "\n".join(f"- {name}: `{sha256}`" for name, sha256 in sorted(files.items())),
        "## Use\n\n`use_with_ase.py` runs without changes. The `.model` file is a pickle: use files "
        "from trusted sources only. In LAMMPS built with the MACE package:\n\n```\n"
        "units metal\natom_style atomic\natom_modify map yes\nnewton on\n"
        "pair_style mace no_domain_decomposition\n"
        f"pair_coeff * * {campaign.name}-lammps.pt {' '.join(model.elements)}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _origin(campaign: Campaign, model: TrainedModel) -> str:
    if model.start_from == "scratch":
        return "Trained from random weights"
    how = "with replay " if campaign.training.fine_tuning == "multihead" else ""
    return f"Fine-tuned {how}from the surrogate `{campaign.exploration.surrogates[0]}`"


def _domain(
    labelled: Sequence[Atoms], isolated_energies: dict[str, float], model: TrainedModel
) -> str:
    """Elements, temperatures, densities and energies of the labels."""
    periodic = [frame for frame in labelled if frame.pbc.all()]
    densities = [f.get_masses().sum() / f.get_volume() / G_PER_CM3 for f in periodic]
    temperatures = [f"{t} K ({n})" for t, n in _count(labelled, "target_temperature_K")]
    energies = [formation_energy(frame, isolated_energies) for frame in labelled]
    largest = max(np.linalg.norm(f.arrays["REF_forces"], axis=1).max() for f in labelled)
    lines = [
        f"elements: {', '.join(symbol for symbol in model.elements if symbol in isolated_energies)}",
        f"temperatures of the dynamics of the frames: {', '.join(temperatures)}",
        _span("densities of the periodic frames, g/cm³", densities),
        _span("energies relative to the isolated atoms, eV/atom", energies),
        f"forces up to {largest:.1f} eV/Å",
        f"{min(map(len, labelled))} to {max(map(len, labelled))} atoms in a frame",
    ]
    return (
        "\n".join(f"- {line}" for line in lines if line)
        + "\n\nOutside this domain the model extrapolates, and only its short-range repulsion is tested."
    )


def _span(what: str, values: Sequence[float]) -> str:
    return f"{what}: {min(values):.3g} to {max(values):.3g}" if values else ""


def _count(labelled: Sequence[Atoms], key: str) -> list[tuple[str, int]]:
    """Number of frames with each value, in the order of the values."""
    counts = Counter(frame.info.get(key, "unknown") for frame in labelled)
    ordered = sorted(counts, key=lambda value: (isinstance(value, str), value))
    return [(v if isinstance(v, str) else f"{v:g}", counts[v]) for v in ordered]


def _errors(report: ModelReport) -> str:
    rows = [
        *report.held_out.items(),
        *((f"model, {kind}", e) for kind, e in report.by_seed_kind.items()),
        *((f"model, {t} K", e) for t, e in report.by_temperature.items()),
    ]
    head = ["of", "frames", *_COLUMNS.values()]
    table = [head, ["---"] * len(head)]
    table += [
        [name.replace("_", " "), str(e["n_frames"]), *(_number(e[key]) for key in _COLUMNS)]
        for name, e in rows
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _physics(report: ModelReport) -> str:
    lines = [
        f"{test.temperature_K:g} K: "
        + (f"stopped by {test.stopped_by}" if test.stopped_by else f"{test.n_steps} steps stable")
        + f", energy drift {_number(test.drift_meV_per_atom_per_ps)} meV/atom/ps"
        for test in report.stability_tests
    ]
    crystal = report.crystals.get("model")
    if crystal and crystal.equation_of_state:
        curve = crystal.equation_of_state
        lines.append(
            f"relaxed {report.crystal_formula}: {curve.volume_A3_per_atom:.3f} Å³/atom, bulk modulus "
            f"{curve.bulk_modulus_GPa:.0f} GPa"
        )
    if crystal and crystal.stiffness:
        constants = crystal.stiffness.cubic_GPa or {
            "shear modulus": crystal.stiffness.shear_modulus_GPa
        }
        lines.append(", ".join(f"{name} {value:.0f} GPa" for name, value in constants.items()))
    if crystal and crystal.phonons:
        lines.append(f"{crystal.phonons.n_imaginary} imaginary modes at Γ of this cell")
    if crystal and crystal.flaw:
        lines.append(f"crystal: {crystal.flaw}")
    lines += [
        f"{c.pair}: {'repulsive' if c.is_repulsive else 'NOT repulsive'} below {c.core_A:.2f} Å, "
        f"{'smooth' if c.is_smooth else 'NOT smooth'}"
        for c in report.pair_curves
    ]
    return "\n".join(f"- {line}" for line in lines)


def _uncertainty(name: str, model: TrainedModel) -> str:
    """Calibration of the committee, and the code that computes its spread."""
    calibration = model.metrics.get("uncertainty")
    if not model.members or calibration is None:
        return ""
    files = [
        f"{name}.model",
        *(f"{name}-committee-{i + 1}.model" for i in range(len(model.members))),
    ]
    shares = ""
    if calibration["scale"] is not None:
        shares = (
            f"; {calibration['within_1']:.0%} of the frames have an error below it and "
            f"{calibration['within_2']:.0%} below twice this value. Rank correlation with the errors: "
            f"{_number(calibration['spearman'])}"
        )
    return (
        f"\n\nUncertainty: the spread of a committee of {len(files)} models (each of the others is "
        "trained on 80 % of the training labels):\n\n```python\n"
        "from mace.calculators import MACECalculator\n\n"
        f'committee = MACECalculator(model_paths={files}, device="cpu", default_dtype="float32")\n'
        "committee.calculate(atoms)\n"
        'forces = committee.results["forces_comm"]\n'
        "spread = (((forces - forces.mean(0)) ** 2).sum(2).mean(0) ** 0.5).max()  # eV/Å\n```\n\n"
        + (
            f"The spread is not calibrated: {calibration['reason']}."
            if calibration["scale"] is None
            else f"Expected force RMSE of a frame: {_number(calibration['scale'])} × its spread, by "
            f"{calibration['n_frames']} {calibration['frames']} frames{shares}."
        )
    )


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"
