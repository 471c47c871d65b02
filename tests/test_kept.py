"""Parts of a structure that are kept, facts of a crystal, and guidance: what is told of a network is what it draws."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from small_models import SMALL_ORBITS

import crystens
from crystens.asking.conditions import Answers
from crystens.asking.kept import Kept
from crystens.asking.question import Question
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.encoding import COORDINATE_ROWS, HEADER
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.networks.codes.stated import Stated
from crystens.networks.facts import Facts, counted
from crystens.symmetry.descriptions import describe, describe_sites
from crystens.training import command_line, tasks

CONF = Path(__file__).parent.parent / "conf"


def rutile(a: float = 4.6, c: float = 2.96, metal: int = 22) -> Crystal:
    """TiO2 in space group 136, metal on 2a and oxygen on 4f."""
    x = 0.305
    places = [[0, 0, 0], [0.5] * 3, [x, x, 0], [-x, -x, 0], [0.5 + x, 0.5 - x, 0.5], [0.5 - x, 0.5 + x, 0.5]]
    return Crystal([a, a, c], [90] * 3, 136, [metal] * 2 + [8] * 4, np.array(places) % 1)


def rocksalt(a: float, metal: int = 11, other: int = 17) -> Crystal:
    """NaCl in its primitive cell."""
    return Crystal([a / 2**0.5] * 3, [60] * 3, 225, [metal, other], np.array([[0, 0, 0], [0.5] * 3]))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A network of few weights, trained on rocksalts and rutiles that have a property."""
    folder = tmp_path_factory.mktemp("kept")
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["cif", "gap"])
        writer.writeheader()
        for step in range(12):
            size = 1 + step / 50
            writer.writerow({"cif": write_cif(rocksalt(5.6 * size)), "gap": 5 + step / 10})
            writer.writerow({"cif": write_cif(rutile(4.6 * size, 2.96 * size)), "gap": 3 + step / 10})
    lines = [
        *SMALL_ORBITS,
        "data=csv",
        f"data.path={folder / 'data.csv'}",
        "data.properties=[gap]",
        "data.split_fractions=[1,0,0]",
        f"data.ingest.cache={folder / 'cache'}",
        f"run_folder={folder / 'run'}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = tasks.train(compose("train", overrides=lines))
    return crystens.load(run, device="cpu")


def test_a_model_says_what_it_can_be_asked(generator: Generator) -> None:
    assert generator.conditions[-3:] == ("structure", "keep", "gap")
    facts = generator.model.facts
    assert facts.names == ("num_elements", "num_sites", "charge_neutral", "gap")
    mean, deviation = facts.scale("gap")
    assert mean == pytest.approx(4.55)
    assert deviation == pytest.approx(np.std([5 + k / 10 for k in range(12)] + [3 + k / 10 for k in range(12)]))
    with pytest.raises(CrystensError, match=r"condition.gab is not known to this model; did you mean gap\?"):
        generator.sample(1, gab=3.0)
    with pytest.raises(CrystensError, match=r"condition.gap=300 is too far from the training crystals, which have 4.5"):
        generator.sample(1, gap=300)


def test_sizes_are_counted_in_training_and_drawn_as_often(generator: Generator) -> None:
    counts = generator.model.size_counts
    found = {tuple(place): int(counts[tuple(place)]) for place in counts.nonzero().tolist()}
    assert set(found) == {(2, 2, 2, 1), (2, 2, 6, 1)}  # orbits, elements, sites, charge-neutral
    assert found[2, 2, 2, 1] + found[2, 2, 6, 1] == int(generator.model.site_counts.sum())
    drawn = generator.model._drawn_sizes(
        torch.full((400,), 2), [torch.Generator().manual_seed(seed) for seed in range(400)]
    )
    assert drawn[:, 0].unique().tolist() == [2]
    assert drawn[:, 1].unique().tolist() == [2, 6]
    assert float((drawn[:, 1] == 6).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert drawn[:, 2].unique().tolist() == [1]
    assert drawn[:, 3].isnan().all()
    assert generator.model._drawn_sizes(torch.tensor([5]), [torch.Generator()]).isnan().all()  # never seen


def test_facts_of_orbits_are_those_of_the_primitive_cell() -> None:
    stated = Stated(
        torch.tensor([[11, 17, 0], [8, 8, 22]]), torch.tensor([225, 136]), torch.tensor([[0, 1, 0], [5, 5, 0]])
    )
    found = counted(stated, torch.tensor([2, 3]))
    assert found["num_elements"].tolist() == [2, 2]
    assert found["num_sites"].tolist() == [2, 10]  # 1 + 1 of F, and 4 + 4 + 2 of P
    assert found["charge_neutral"].tolist() == [1, 1]  # NaCl, and Ti2O8 with peroxide or superoxide
    other = Stated(torch.tensor([[11, 17, 17]]), torch.tensor([225]), torch.tensor([[0, 1, 2]]))  # NaCl3
    assert counted(other, torch.tensor([3]), ("charge_neutral",)) == {"charge_neutral": torch.tensor([0])}


def test_hidden_facts_add_nothing_and_known_ones_are_told_apart() -> None:
    facts = Facts(["gap", "num_sites"], 8)
    assert facts.names == ("num_sites", "gap")
    with pytest.raises(CrystensError, match=r"network.facts has gap, which the data do not keep"):
        facts.tell({})
    assert not facts.told
    facts.tell({"gap": (2.0, 1.0)})
    assert facts.told
    torch.nn.init.normal_(facts.read.weight)
    given = torch.tensor([[torch.nan, torch.nan], [torch.nan, 2.0], [torch.nan, 3.0], [20.0, 3.0]])
    added = facts(given)
    assert not added[0].any()
    assert all(not torch.allclose(added[one], added[other]) for one, other in ((1, 2), (2, 3), (0, 1)))
    with pytest.raises(CrystensError, match="has a name twice: gap, gap"):
        Facts(["gap", "gap"], 8)


def test_the_orbit_of_each_site_is_known() -> None:
    for crystal in (rutile(), rocksalt(5.6), Crystal([3, 4, 5], [90, 95, 90], 1, [8, 8, 26], np.eye(3) * 0.3)):
        listed, places = describe_sites(crystal)
        plain = describe(crystal)
        assert listed.letters == plain.letters
        assert listed.numbers.tolist() == plain.numbers.tolist()
        assert listed.numbers[places].tolist() == crystal.numbers.tolist()
        assert np.bincount(places).sum() == len(crystal)
    assert describe_sites(rutile())[1].tolist() == [1, 1, 0, 0, 0, 0]  # oxygen comes first in the list


def encoded(generator: Generator, structure: Crystal, question: Question) -> tuple[Kept, Question]:
    return Kept.of(structure, question, lambda batch: generator.scaling.encode(batch, generator.distance), 20)


def test_what_is_kept_of_a_structure_is_drawn(generator: Generator) -> None:
    structure = rutile(5.0, 3.1)
    question = Question.of(structure=structure, keep=["cell", "sites"], chemical_system="Na-O")
    for item in generator.sample(4, as_="decoded", structure=structure, keep="cell,sites", chemical_system="Na-O"):
        assert item.crystal is not None
        assert item.crystal.formula == "NaO2"
        assert item.crystal.space_group == 136
        np.testing.assert_allclose(sorted(item.crystal.lengths), [3.1, 5.0, 5.0], atol=1e-3)
        oxygen = item.crystal.coordinates[item.crystal.numbers == 8]
        assert np.isclose(oxygen, 0.305, atol=1e-3).any()
    kept, derived = encoded(generator, structure, question)
    assert derived.space_group == 136
    drawn = Answers(derived, generator.orbits, 20, ("num_sites", "gap"), kept).draw(1, np.random.default_rng(0))
    known = drawn.told.cells.isfinite()[0]
    assert known[0, COORDINATE_ROWS, HEADER : HEADER + 2].all()
    assert known[0, 4:10, HEADER : HEADER + 2].all()
    assert int(known.sum()) == 4 * 2 * 2 * (3 + 6)
    assert drawn.told.facts[0, 0] == 6
    assert drawn.told.facts[0, 1].isnan()


def test_a_cell_alone_and_one_site_alone_can_be_kept(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "rutile.cif"
    path.write_text(write_cif(rutile(5.0, 3.1)))
    for item in generator.sample(3, as_="decoded", structure=str(path), keep="cell"):
        assert item.generated_space_group == 136  # the one tetragonal group that training had
        assert item.crystal is None or np.allclose(sorted(item.crystal.lengths), [3.1, 5.0, 5.0], atol=1e-3)
    kept, derived = encoded(generator, rutile(5.0, 3.1), Question.of(structure="x", keep=[0]))
    drawn = Answers(derived, generator.orbits, 20, (), kept).draw(1, np.random.default_rng(0))
    assert drawn.told.allowed.elements[0, 1].nonzero().flatten().tolist() == [22]  # the metal, second in the list
    assert drawn.told.allowed.elements[0, 0].all()
    assert drawn.told.allowed.positions[0, 1].sum() == 1
    assert drawn.told.allowed.positions[0, 0].all()
    assert int(drawn.told.cells.isfinite().sum()) == 4 * 2 * 3
    asked = generator.answers([Question.of(structure=str(path), keep=["formula", "space_group"])])[0]
    assert asked.question.to_dict() | {"structure": ""} == {
        **{"formula": "TiO2", "space_group": 136, "structure": "", "keep": ["formula", "space_group"]}
    }


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"keep": [6]}, "condition.keep=6 is no site of condition.structure, whose 6 sites are counted from 0"),
        (
            {"keep": ["cell"], "space_group": 225},
            "condition.space_group=225 is cubic, and the cell of condition.structure is tetragonal",
        ),
        ({"keep": ["sites"], "space_group": 225}, "condition.space_group=225 is not the one of condition.structure"),
        ({"keep": ["sites"], "formula": "NaCl"}, "Na-Cl do not fit the kept sites"),
        ({"keep": ["sites", 0], "formula": "NaCl2"}, "Na-Cl do not fit the kept sites"),
        ({"keep": ["formula"], "chemical_system": "Na-Cl"}, "condition.formula has other elements than"),
    ],
)
def test_what_contradicts_a_structure_is_one_line(generator: Generator, conditions: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        generator.answers([Question.of(structure=rutile(), **conditions)])
    assert "\n" not in str(caught.value)


def test_a_structure_of_more_sites_than_the_model_draws_is_one_line_before_sampling(generator: Generator) -> None:
    x = 0.24
    places = [[0, 0, 0], [0.25] * 3, [0.75] * 3, *(sign * x * np.eye(3)[axis] for axis in range(3) for sign in (1, -1))]
    faces = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = np.concatenate([np.array(places) + shift for shift in faces]) % 1
    numbers = [22, 11, 11, *[17] * 6] * 4  # Na2TiCl6, nine sites in the primitive cell; training had at most six
    structure = Crystal([10.0] * 3, [90] * 3, 225, numbers, sites)
    for keep in (["sites"], ["cell", "sites"], [0]):
        with pytest.raises(
            CrystensError, match=r"has 9 sites in its primitive cell.*at most 6: keep no sites"
        ) as caught:
            generator.answers([Question.of(structure=structure, keep=keep)])
        assert "\n" not in str(caught.value)
    (answers,) = generator.answers([Question.of(structure=structure, keep="space_group,cell")])
    assert answers.question.space_group == 225


def test_a_structure_that_cannot_be_read_is_one_line(generator: Generator, tmp_path: Path) -> None:
    for name, text, message in (
        ("none.cif", None, "none.cif"),
        ("bad.cif", "data_x\n", "condition.structure=.*bad.cif"),
        ("two.cif", write_cif(rutile()) + "\n" + write_cif(rocksalt(5.6)), "two.cif holds 2 crystals"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(CrystensError, match=message) as caught:
            generator.sample(1, structure=str(tmp_path / name), keep="cell")
        assert "\n" not in str(caught.value)


def test_guidance_of_1_is_the_conditional_model_and_others_are_not(generator: Generator) -> None:
    plain = generator.sample_images(3, gap=4.0)
    assert torch.equal(plain, generator.sample_images(3, guidance=1.0, gap=4.0))
    assert not torch.equal(plain, generator.sample_images(3, guidance=3.0, gap=4.0))
    for item in generator.sample(3, as_="decoded", guidance=3.0, space_group=225):
        assert item.generated_space_group == 225
    for wrong in (-1, True, "2", 1e3):
        with pytest.raises(CrystensError, match=r"guidance.factor=.* must be a number from 0 to 20"):
            generator.sample_images(1, guidance=wrong, gap=4.0)
    with pytest.raises(CrystensError, match="nothing is asked"):
        generator.sample_images(1, guidance=2.0)


def test_sample_py_takes_properties_structures_and_guidance(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "rutile.cif"
    path.write_text(write_cif(rutile()))
    lines = [
        command_line._as_written(line)
        for line in (f"condition.structure={path}", "condition.keep=[cell]", "condition.gap=4.0", "guidance.factor=2.0")
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("sample", overrides=lines)
    assert cfg.condition.gap == 4.0
    assert cfg.guidance.factor == 2.0
    question = Question.from_mapping(dict(cfg.condition) | {"keep": list(cfg.condition.keep)})
    assert question == Question.of(structure=str(path), keep=["cell"], gap=4)
