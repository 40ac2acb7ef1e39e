"""Campaign files: defaults, round trip, and errors a new user meets."""

from pathlib import Path

import ase.io
import pytest
import yaml
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.campaign import Campaign, CampaignError, fingerprint, load

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"


def write(folder: Path, text: str, name: str = "silicon") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_lines_are_a_campaign(tmp_path):
    campaign = load(write(tmp_path, "name: silicon\ncomposition: Si\n"))
    assert campaign.elements == ("Si",)
    assert campaign.labelling.cutoff_eV is not None
    assert campaign.sampling.n_samples <= campaign.n_frames
    with pytest.raises(ValueError, match="frozen"):
        campaign.random_seed = 3


@pytest.mark.parametrize("file", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda f: f.stem)
def test_examples_load(file):
    assert load(file).name == file.stem


def test_full_yaml_is_the_same_campaign(tmp_path):
    short = load(write(tmp_path, "name: silicon\ncomposition: Si\nrandom_seed: 7\n"))
    full = load(write(tmp_path, short.to_yaml()))
    assert full == short
    assert full.fingerprint == short.fingerprint
    assert "fs" in short.to_yaml()


def test_off_needs_no_quotes(tmp_path):
    """YAML takes a bare off for false."""
    text = "name: silicon\ncomposition: Si\ndescriptors: {compression: off}\n"
    campaign = load(write(tmp_path, text))
    assert campaign.descriptors.compression == "off"
    assert load(write(tmp_path, campaign.to_yaml())) == campaign


def test_sampling_as_people_write_it(tmp_path):
    text = "name: silicon\ncomposition: Si\nsampling:\n  n_components: 5\n  weighting: off\n"
    sampling = load(write(tmp_path, text)).sampling
    assert (sampling.components, sampling.n_components, sampling.weighting) == ("fixed", 5, "off")


def test_constant_pressure_is_none_unless_said(tmp_path):
    text = "name: silicon\ncomposition: Si\nexploration:\n  ensemble: npt_full\n"
    ramp = "  temperature_ramps_K: [[[0, 300], [100, 900]]]\n"
    campaign = load(write(tmp_path, text + ramp))
    assert campaign.exploration.pressures_GPa == (0.0,)
    assert campaign.n_walkers == campaign.n_seeds * 3
    assert load(write(tmp_path, campaign.to_yaml())) == campaign


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: silicon\ncompositon: Si\n", "did you mean 'composition'"),
        ("name: silicon\ncomposition: Si\nsampling:\n  n_sample: 3\n", "did you mean 'n_samples'"),
        ("name: silicon\ncomposition: Sii\n", "did you mean 'Si'"),
        ("name: silicon\ncomposition: Xx\n", "not a chemical element"),
        ("name: silicon\ncomposition: Si\nexploration:\n  temperatures_K: [-5]\n", "-5 K is not"),
        ("name: silicon\ncomposition: Si\nexploration:\n  timestep_fs: 2 fs\n", "write the number"),
        ("name: silicon\ncomposition: Si\nexploration:\n  timestep_fs: 0.002\n", "time step, fs"),
        ("name: silicon\ncomposition: Si\nexploration:\n  surrogate: mace-mp0\n", "'mace-mp-0'"),
        ("name: silicon\ncomposition: Si\nexploration:\n  surrogate: no.model\n", "does not exist"),
        (
            "name: silicon\ncomposition: Si\nexploration: {surrogate: [bundled, mace-mp-1]}\n",
            "did you mean 'mace-mp-0'",
        ),
        (
            "name: silicon\ncomposition: Si\nexploration: {surrogate: 'm3gnet:nowhere'}\n"
            "training: {start_from: scratch}\n",
            "there is no folder",
        ),
        (
            "name: silicon\ncomposition: Si\nexploration: {surrogate: m3gnet}\n",
            "training.start_from: 'm3gnet' is not a MACE model",
        ),
        ("name: silicon\ncomposition: Si\nseeds:\n  files: [no.cif]\n", "does not exist"),
        ("name: silicon\ncomposition: Si\nseeds:\n  kinds: [cristal]\n", "did you mean 'crystal'"),
        ("name: silicon\ncomposition: Si\nsampling:\n  n_samples: 999999\n", "give at most"),
        (
            "name: silicon\ncomposition: Si\nsampling: {exclude_labelled_in: [../other]}\n",
            "sampling.exclude_labelled_in.0: '../other'",
        ),
        (
            "name: silicon\ncomposition: Si\nsampling:\n  n_samples: 5\n  n_clusters: 6\n",
            "cannot all be represented",
        ),
        (
            "name: silicon\ncomposition: Si\ndescriptors: {implementation: dscribe, average: species}\n",
            "descriptors.average: 'species' is not supported by dscribe; write 'implementation: numba'",
        ),
        (
            "name: silicon\ncomposition: Si\ndescriptors: {implementation: dscribe, precision: float32}\n",
            "descriptors.precision: dscribe computes in float64 only; write 'implementation: numba'",
        ),
        (
            "name: silicon\ncomposition: Si\ndescriptors: {compression: mu1nu2}\n",
            "did you mean 'mu1nu1'?; choose from: off, mu2, mu1nu1, crossover",
        ),
        (
            "name: silicon\ncomposition: Si\nsampling:\n  components: fixed\n",
            "give a number with 'fixed'",
        ),
        (
            "name: silicon\ncomposition: Si\nsampling:\n  components: kaiser\n  n_components: 3\n",
            "kaiser does not go with n_components = 3",
        ),
        (
            "name: silicon\ncomposition: Si\nsampling:\n  method: fps\n  prefer_small_cells: true\n",
            "method 'fps' does not use the sizes of cells",
        ),
        ("name: silicon\ncomposition: Si\nexploration: {pressures_GPa: [1]}\n", "no barostat"),
        ("name: silicon\ncomposition: Si\nexploration: {temperatures_K: []}\n", "at least one"),
        (
            "name: silicon\ncomposition: Si\n"
            "exploration: {temperature_ramps_K: [[[10, 300], [5, 600]]]}\n",
            "the steps [10, 5] of a ramp must increase",
        ),
        (
            "name: silicon\ncomposition: Si\n"
            "exploration: {ensemble: nve, temperature_ramps_K: [[[0, 300], [5, 600]]]}\n",
            "has no thermostat",
        ),
        ("name: silicon\ncomposition: Si\nguards: {framework: [Sii]}\n", "did you mean 'Si'"),
        ("name: silicon\ncomposition: Si\nsampling:\n  method: direkt\n", "did you mean 'direct'"),
        ("name: other\ncomposition: Si\n", "name: silicon"),
        ("name: silicon\nname: silicon\ncomposition: Si\n", "written twice"),
        ("name: silicon\ncomposition: [Si\n", "not valid YAML"),
        ("- silicon\n", "key: value"),
        ("", "key: value"),
        ("name: silicon\n", "composition: missing"),
        ("name: silicon\ncomposition: Fe2O3\n", "seeds.files"),
        ("name: silicon\ncomposition: Si\nseeds: 3\n", "seeds"),
        (
            "name: silicon\ncomposition: Si\ntraining: {fine_tuning: multihead}\n",
            "training.fine_tuning: multihead needs structures to replay; write 'replay:",
        ),
        (
            "name: silicon\ncomposition: Si\ntraining: {replay: world.xyz}\n",
            "training.replay: 'world.xyz' is not used by 'fine_tuning: naive'; write",
        ),
        (
            "name: silicon\ncomposition: Si\n"
            "training: {start_from: scratch, fine_tuning: multihead, replay: world.xyz}\n",
            "training.fine_tuning: multihead needs a model to start from; write 'start_from:",
        ),
        (
            "name: silicon\ncomposition: Si\n"
            "training: {fine_tuning: multihead, replay: world.xyz}\n",
            "training.replay: 'world.xyz' does not exist",
        ),
    ],
)
def test_errors_name_file_key_and_fix(tmp_path, text, said):
    with pytest.raises(CampaignError) as error:
        load(write(tmp_path, text))
    assert "silicon.yaml" in str(error.value)
    assert said in str(error.value)


def test_every_problem_is_told_at_once(tmp_path):
    text = "name: silicon\ncomposition: Si\nsed: 1\nsampling:\n  n_samples: -4\n"
    with pytest.raises(CampaignError) as error:
        load(write(tmp_path, text))
    assert len(str(error.value).splitlines()) == 2


def test_missing_campaign_suggests_a_neighbour(tmp_path):
    write(tmp_path, "name: silicon\ncomposition: Si\n")
    with pytest.raises(CampaignError, match="did you mean"):
        load(tmp_path / "silcon.yaml")


def test_unreadable_structure_file(tmp_path):
    (tmp_path / "broken.cif").write_text("this is no crystal", encoding="utf-8")
    with pytest.raises(CampaignError, match="cannot be read as a structure"):
        load(write(tmp_path, "name: silicon\ncomposition: Si\nseeds:\n  files: [broken.cif]\n"))


def test_structure_of_another_element(tmp_path):
    from ase.build import bulk

    bulk("Cu").write(tmp_path / "copper.cif")
    with pytest.raises(CampaignError, match="contains Cu"):
        load(write(tmp_path, "name: silicon\ncomposition: Si\nseeds:\n  files: [copper.cif]\n"))


@pytest.mark.parametrize(
    ("structures", "said"),
    [
        ([Atoms("Cu")], "contains 1 structure(s); give two or more"),
        ([Atoms("Cu"), Atoms("CuX")], "structure 1 contains X, which is not a chemical element"),
        (None, "cannot be read as a structure"),
    ],
)
def test_what_cannot_be_replayed_is_told(tmp_path, structures, said):
    text = "name: silicon\ncomposition: Si\ntraining: {fine_tuning: multihead, replay: w.xyz}\n"
    ase.io.write(tmp_path / "w.xyz", [Atoms("Cu"), Atoms("NaCl")])
    assert load(write(tmp_path, text)).training.replay == str(tmp_path / "w.xyz")
    if structures is None:
        (tmp_path / "w.xyz").write_text("no structure\n")
    else:
        ase.io.write(tmp_path / "w.xyz", structures)
    with pytest.raises(CampaignError, match=r"silicon\.yaml: training\.replay: 'w\.xyz'") as error:
        load(write(tmp_path, text))
    assert said in str(error.value)


def test_fingerprint_ignores_key_order_but_not_values():
    one = fingerprint({"a": 1, "b": 2})
    assert one == fingerprint({"b": 2, "a": 1})
    assert one != fingerprint({"a": 1, "b": 3})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(st.sampled_from([*Campaign.model_fields, "files", "x"]), children)
        ),
        max_leaves=12,
    )
)
def test_any_yaml_gives_a_campaign_or_a_campaign_error(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("fuzz"), yaml.safe_dump(value))
    try:
        campaign = load(path)
    except CampaignError:
        return
    assert load(write(path.parent, campaign.to_yaml())) == campaign
