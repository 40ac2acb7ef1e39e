"""The campaign file: read, check, fill in the preset, find the files that it names."""

from __future__ import annotations

import difflib
import functools
import logging
import os
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.io import read
from pydantic import ValidationError

from mlip_assets.campaign.campaign import Campaign
from mlip_assets.campaign.messages import CampaignError, nearest, problems_of
from mlip_assets.campaign.presets import preset_values
from mlip_assets.campaign.settings.exploration import (
    BUNDLED_SURROGATE,
    FOLDER_SURROGATES,
    NAMED_SURROGATES,
    OWN_SURROGATE,
)
from mlip_assets.campaign.settings.section import Section
from mlip_assets.campaign.yaml_text import read_yaml
from mlip_assets.structures.alloys import parent_lattice
from mlip_assets.structures.molecules import find_molecule
from mlip_assets.structures.prototypes import find_prototype

_log = logging.getLogger(__name__)

#: Release that no longer reads the earlier names of renamed keys.
_FIRST_NAMES_UNTIL = "0.3"


def load(path: str | os.PathLike[str]) -> Campaign:
    """Read a campaign file, fill in every default and check it.

    A key under its earlier name is read too, and a warning with its present name is logged once.

    Parameters
    ----------
    path
        A YAML file; its stem is the campaign's name.

    Raises
    ------
    CampaignError
        The file is missing, is not YAML, or has unknown keys or impossible values. Relative paths
        in it are resolved against its folder, and files it names must exist and be readable.
    """
    file = Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [f.name for f in file.parent.glob("*.yaml")], 1)
        hint = f"; did you mean '{file.parent / near[0]}'?" if near else ""
        raise CampaignError(f"{file}: no such campaign file{hint}")
    try:
        written = read_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CampaignError(f"{file}: not UTF-8 text ({error}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise CampaignError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise CampaignError(
            f"{file}: expected 'key: value' lines, at least 'name: {file.stem}' and 'composition: …'"
        )
    campaign = _with_files_resolved(_with_preset(_validated(written, file)), file)
    for first, present in Campaign.renamed_keys(written):
        _warn_once(
            f"{file}: {first} is now {present}; the old key is read until release "
            f"{_FIRST_NAMES_UNTIL}"
        )
    return campaign


@functools.lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    """Log a warning once per process: sensors load every campaign again and again."""
    _log.warning(message)


def _validated(written: dict[str, Any], file: Path) -> Campaign:
    try:
        campaign = Campaign.model_validate(written)
    except ValidationError as error:
        problems = problems_of(error, Campaign)
        raise CampaignError("\n".join(f"{file}: {problem}" for problem in problems)) from error
    if campaign.name != file.stem:
        raise CampaignError(
            f"{file}: name: '{campaign.name}' differs from the file name; write 'name: {file.stem}' "
            f"or rename the file to '{campaign.name}.yaml'"
        )
    return campaign


def _with_preset(campaign: Campaign) -> Campaign:
    """What the file leaves to the preset, filled in."""
    labelling = campaign.labelling
    values = preset_values(labelling.engine, labelling.preset, campaign.elements)
    unset = {key: value for key, value in values.items() if getattr(labelling, key) is None}
    return campaign.model_copy(update={"labelling": labelling.model_copy(update=unset)})


def _with_files_resolved(campaign: Campaign, file: Path) -> Campaign:
    """Absolute paths for the files a campaign names; each must exist, and structures must be read."""
    updates: dict[str, Section] = {}
    if campaign.seeds.files:
        files = tuple(_readable_structure(name, campaign, file) for name in campaign.seeds.files)
        updates["seeds"] = campaign.seeds.model_copy(update={"files": files})
    _check_known_structures(campaign, file)
    found = tuple(_resolved_surrogate(name, file) for name in campaign.exploration.surrogates)
    surrogate = found if len(found) > 1 else found[0]
    updates["exploration"] = campaign.exploration.model_copy(update={"surrogate": surrogate})
    if campaign.labelling.pseudopotentials is not None:
        folder = (file.parent / campaign.labelling.pseudopotentials).resolve()
        if not folder.is_dir():
            raise CampaignError(
                f"{file}: labelling.pseudopotentials: there is no folder {folder}; give a path "
                f"relative to {file.parent}"
            )
        update = {"pseudopotentials": str(folder)}
        updates["labelling"] = campaign.labelling.model_copy(update=update)
    if campaign.training.replay is not None:
        update = {"replay": _readable_replay(campaign.training.replay, file)}
        updates["training"] = campaign.training.model_copy(update=update)
    return campaign.model_copy(update=updates)


def _check_known_structures(campaign: Campaign, file: Path) -> None:
    """Crystal, alloy lattice and molecules must be known, where the kinds of seed need them."""
    seeds = campaign.seeds
    key = "seeds.prototype" if seeds.prototype else "composition"
    try:
        if not seeds.files and set(seeds.kinds) - {"cluster", "molecule", "alloy"}:
            find_prototype(campaign.composition, seeds.prototype, seeds.lattice_constant_A)
        if not seeds.files and "alloy" in seeds.kinds and not seeds.prototype:
            parent_lattice(campaign.formula)
    except ValueError as error:
        raise CampaignError(f"{file}: {key}: {error}") from error
    if "molecule" not in seeds.kinds:
        return
    for name in seeds.molecules or (campaign.composition,):
        try:
            molecule = find_molecule(name)
        except ValueError as error:
            raise CampaignError(f"{file}: seeds.molecules: {error}") from error
        _require_own_elements(molecule, campaign, f"{file}: seeds.molecules: {name}")


def _require_own_elements(atoms: Atoms, campaign: Campaign, where: str) -> None:
    foreign = sorted(set(atoms.symbols) - set(campaign.elements))
    if foreign:
        raise CampaignError(
            f"{where} contains {', '.join(foreign)}, which the composition {campaign.composition} "
            "does not"
        )


def _resolved_surrogate(name: str, file: Path) -> str:
    """A known name as it is; a file, or the folder after a name, with its absolute path."""
    known = [BUNDLED_SURROGATE, OWN_SURROGATE, *NAMED_SURROGATES]
    family, colon, folder = name.partition(":")
    if colon and family in FOLDER_SURROGATES:
        path = (file.parent / folder).resolve()
        if not path.is_dir():
            raise CampaignError(
                f"{file}: exploration.surrogate: '{name}': there is no folder {path}; write "
                f"'{family}:' and the folder of its model, or '{family}' alone"
            )
        return f"{family}:{path}"
    if name in known:
        return name
    path = (file.parent / name).resolve()
    if not path.is_file():
        raise CampaignError(
            f"{file}: exploration.surrogate: '{name}' is neither a known model nor a file "
            f"({path} does not exist){nearest(name, known)}"
        )
    return str(path)


def _readable_structure(name: str, campaign: Campaign, file: Path) -> str:
    where = f"{file}: seeds.files: '{name}'"
    path, (atoms,) = _read_structures(name, file, where, "-1:")
    _require_own_elements(atoms, campaign, where)
    return str(path)


def _readable_replay(name: str, file: Path) -> str:
    where = f"{file}: training.replay: '{name}'"
    path, structures = _read_structures(name, file, where, ":")
    if len(structures) < 2:
        raise CampaignError(
            f"{where} contains {len(structures)} structure(s); give two or more, for training and "
            "for validation"
        )
    nameless = [i for i, atoms in enumerate(structures) if not atoms.numbers.all()]
    if nameless:
        raise CampaignError(
            f"{where}: structure {nameless[0]} contains X, which is not a chemical element; leave "
            "it out"
        )
    return str(path)


def _read_structures(name: str, file: Path, where: str, index: str) -> tuple[Path, list[Atoms]]:
    path = (file.parent / name).resolve()
    if not path.is_file():
        raise CampaignError(
            f"{where} does not exist ({path}); give a path relative to {file.parent}"
        )
    try:
        return path, list(read(path, index=index))
    except Exception as error:  # ASE's readers raise any exception that their parsers raise
        raise CampaignError(
            f"{where} cannot be read as a structure ({type(error).__name__}: {error}); use a format "
            "that ASE reads, such as .cif, .xyz or POSCAR"
        ) from error
