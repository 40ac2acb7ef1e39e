"""Campaign files: defaults, round trip through YAML, and error messages."""

from pathlib import Path

import ase.io
import pytest
import yaml
from ase import Atoms
from hypothesis import assume, given
from hypothesis import strategies as st

from mlip_assets.campaign import NAME_PATTERN, Campaign, CampaignError, fingerprint, load

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"


def write(folder: Path, text: str, name: str = "silicon") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_load_fills_in_defaults_of_two_lines(tmp_path):
    campaign = load(write(tmp_path, "name: silicon\ncomposition: Si\n"))
    assert campaign.elements == ("Si",)
    assert campaign.labelling.cutoff_eV is not None
    assert campaign.sampling.n_samples <= campaign.n_frames
    with pytest.raises(ValueError, match="frozen"):
        campaign.random_seed = 3


@pytest.mark.parametrize("file", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda f: f.stem)
def test_load_example_campaigns(file):
    assert load(file).name == file.stem


def test_to_yaml_loads_to_an_equal_campaign(tmp_path):
    short = load(write(tmp_path, "name: silicon\ncomposition: Si\nrandom_seed: 7\n"))
    full = load(write(tmp_path, short.to_yaml()))
    assert full == short
    assert full.fingerprint == short.fingerprint
    assert "fs" in short.to_yaml()


def test_load_reads_off_without_quotes(tmp_path):
    """YAML reads a bare off as false."""
    text = "name: silicon\ncomposition: Si\ndescriptors: {compression: off}\n"
    campaign = load(write(tmp_path, text))
    assert campaign.descriptors.compression == "off"
    assert load(write(tmp_path, campaign.to_yaml())) == campaign


def test_load_infers_fixed_components_from_their_number(tmp_path):
    text = "name: silicon\ncomposition: Si\nsampling:\n  n_components: 5\n  weighting: off\n"
    sampling = load(write(tmp_path, text)).sampling
    assert (sampling.components, sampling.n_components, sampling.weighting) == ("fixed", 5, "off")


def test_npt_without_pressure_runs_at_zero(tmp_path):
    text = "name: silicon\ncomposition: Si\nexploration:\n  ensemble: npt_full\n"
    ramp = "  temperature_ramps_K: [[[0, 300], [100, 900]]]\n"
    campaign = load(write(tmp_path, text + ramp))
    assert campaign.exploration.pressures_GPa == (0.0,)
    assert campaign.n_walkers == campaign.n_seeds * 3
    assert load(write(tmp_path, campaign.to_yaml())) == campaign


@pytest.mark.parametrize(
    ("text", "message"),
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
            "name: silicon\ncomposition: Si\nexploration: {surrogate: 'm3gnet:missing'}\n"
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
            "name: silicon\ncomposition: Si\ntraining: {replay: replay.xyz}\n",
            "training.replay: 'replay.xyz' is not used by 'fine_tuning: naive'; write",
        ),
        (
            "name: silicon\ncomposition: Si\n"
            "training: {start_from: scratch, fine_tuning: multihead, replay: replay.xyz}\n",
            "training.fine_tuning: multihead needs a model to start from; write 'start_from:",
        ),
        (
            "name: silicon\ncomposition: Si\n"
            "training: {fine_tuning: multihead, replay: replay.xyz}\n",
            "training.replay: 'replay.xyz' does not exist",
        ),
    ],
)
def test_load_errors_name_file_key_and_fix(tmp_path, text, message):
    with pytest.raises(CampaignError) as error:
        load(write(tmp_path, text))
    assert "silicon.yaml" in str(error.value)
    assert message in str(error.value)


def test_load_reports_all_problems_together(tmp_path):
    text = "name: silicon\ncomposition: Si\nsed: 1\nsampling:\n  n_samples: -4\n"
    with pytest.raises(CampaignError) as error:
        load(write(tmp_path, text))
    assert len(str(error.value).splitlines()) == 2


def test_load_of_missing_file_suggests_a_similar_name(tmp_path):
    write(tmp_path, "name: silicon\ncomposition: Si\n")
    with pytest.raises(CampaignError, match="did you mean"):
        load(tmp_path / "silcon.yaml")


def test_load_refuses_an_unreadable_structure_file(tmp_path):
    (tmp_path / "broken.cif").write_text("not a crystal", encoding="utf-8")
    with pytest.raises(CampaignError, match="cannot be read as a structure"):
        load(write(tmp_path, "name: silicon\ncomposition: Si\nseeds:\n  files: [broken.cif]\n"))


def test_load_refuses_structures_with_other_elements(tmp_path):
    from ase.build import bulk

    bulk("Cu").write(tmp_path / "copper.cif")
    with pytest.raises(CampaignError, match="contains Cu"):
        load(write(tmp_path, "name: silicon\ncomposition: Si\nseeds:\n  files: [copper.cif]\n"))


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ([Atoms("Cu")], "contains 1 structure(s); give two or more"),
        ([Atoms("Cu"), Atoms("CuX")], "structure 1 contains X, which is not a chemical element"),
        (None, "cannot be read as a structure"),
    ],
)
def test_load_refuses_unusable_replay_structures(tmp_path, structures, message):
    text = "name: silicon\ncomposition: Si\ntraining: {fine_tuning: multihead, replay: w.xyz}\n"
    ase.io.write(tmp_path / "w.xyz", [Atoms("Cu"), Atoms("NaCl")])
    assert load(write(tmp_path, text)).training.replay == str(tmp_path / "w.xyz")
    if structures is None:
        (tmp_path / "w.xyz").write_text("no structure\n")
    else:
        ase.io.write(tmp_path / "w.xyz", structures)
    with pytest.raises(CampaignError, match=r"silicon\.yaml: training\.replay: 'w\.xyz'") as error:
        load(write(tmp_path, text))
    assert message in str(error.value)


def test_fingerprint_ignores_key_order_but_not_values():
    one = fingerprint({"a": 1, "b": 2})
    assert one == fingerprint({"b": 2, "a": 1})
    assert one != fingerprint({"a": 1, "b": 3})


@pytest.mark.slow
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
def test_load_of_any_yaml_gives_a_campaign_or_a_campaign_error(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("fuzz"), yaml.safe_dump(value))
    try:
        campaign = load(path)
    except CampaignError:
        return
    assert load(write(path.parent, campaign.to_yaml())) == campaign


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


SECTIONS = {
    "seeds": {
        "kinds": st.lists(
            st.sampled_from(["crystal", "sheared", "antisite", "slab", "alloy", "melt_quench"]),
            min_size=1,
            unique=True,
        ),
        "strains": st.lists(numbers(-0.2, 0.2), max_size=3),
        "surfaces": st.lists(
            st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(1, 3)),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        "rattle_A": numbers(0.01, 0.9),
        "molecules": st.lists(st.sampled_from(["LiF", "NaCl"]), unique=True),
    },
    "exploration": {
        "md_backend": st.sampled_from(["auto", "ase", "torchsim"]),
        "surrogate": st.sampled_from(["bundled", "mace-mp-0", ["bundled", "mace-mpa-0"]]),
        "temperatures_K": st.lists(numbers(1, 20_000), min_size=1, max_size=3, unique=True),
        "temperature_ramps_K": st.just([[[0, 300.0], [10, 900.5]]]),
        "ensemble": st.sampled_from(["nvt", "npt_isotropic", "npt_full"]),
        "timestep_fs": numbers(0.05, 10),
    },
    "guards": {
        "max_gap_ratio": st.none() | numbers(1.1, 5),
        "framework": st.lists(st.sampled_from(["Na", "Cl"]), unique=True),
    },
    "descriptors": {
        "compression": st.sampled_from(["off", False, "mu2", "mu1nu1"]),
        "sigma": numbers(0.1, 2),
    },
    "sampling": {
        "n_components": st.none() | st.integers(1, 9),
        "presample_above": st.none() | st.integers(1000, 10**9),
        "exclude_labelled_in": st.lists(st.from_regex(NAME_PATTERN, fullmatch=True), max_size=2),
        "pca_from": st.none() | st.from_regex(NAME_PATTERN, fullmatch=True),
        "weighting": st.sampled_from(["off", "explained_variance"]),
    },
    "labelling": {
        "spin": st.sampled_from(["auto", "on", "off", True]),
        "preset": st.sampled_from(["fast", "standard", "strict"]),
        "cutoff_eV": st.none() | numbers(150, 4000),
        "energy_convergence_eV": st.none() | numbers(1e-12, 1e-2),
        "budget_calls": st.none() | st.integers(0, 10**6),
    },
    "training": {"learning_rate": numbers(1e-9, 0.99), "patience": st.none() | st.integers(1, 99)},
    "refresh": {"enabled": st.booleans(), "min_error_reduction": numbers(0, 0.99)},
}


@given(
    st.fixed_dictionaries(
        {"random_seed": st.integers(0, 2**32 - 1)},
        optional={
            name: st.fixed_dictionaries({}, optional=settings)
            for name, settings in SECTIONS.items()
        },
    )
)
def test_to_yaml_of_any_campaign_loads_to_an_equal_campaign(tmp_path_factory, written):
    sampling = {"n_samples": 1, **written.get("sampling", {})}
    written = {"name": "silicon", "composition": "NaCl", **written, "sampling": sampling}
    assume("silicon" not in sampling.get("exclude_labelled_in", []))
    path = write(tmp_path_factory.mktemp("any"), yaml.safe_dump(to_lists(written)))
    campaign = load(path)
    again = load(write(path.parent, campaign.to_yaml()))
    assert again == campaign
    assert again.fingerprint == campaign.fingerprint


def to_lists(value: object) -> object:
    """The value with tuples as lists, which YAML has no tag for."""
    if isinstance(value, dict):
        return {key: to_lists(item) for key, item in value.items()}
    return [to_lists(item) for item in value] if isinstance(value, list | tuple) else value
