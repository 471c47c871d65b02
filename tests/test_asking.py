"""Questions: how they are read, which orbits answer them, and that what is drawn is what was asked."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from small_models import SMALL_ORBITS

import crystens
from crystens.asking.conditions import Answers
from crystens.asking.known import KnownOrbits, Orbits, unlikeness
from crystens.asking.positions import Assignments
from crystens.asking.question import Question
from crystens.asking.table import read_questions
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.symmetry.wyckoff import primitive_multiplicities, space_group
from crystens.training import command_line, tasks

CONF = Path(__file__).parent.parent / "conf"

PEROVSKITE = Orbits(221, np.array([8, 20, 22]), np.array([3, 0, 1]))  # CaTiO3 on c, a, b
ROCKSALT = Orbits(225, np.array([11, 17]), np.array([0, 1]))
HEUSLER = Orbits(225, np.array([13, 25, 29]), np.array([0, 1, 2]))  # AlMnCu2


@pytest.fixture
def known() -> KnownOrbits:
    return KnownOrbits([PEROVSKITE, ROCKSALT, ROCKSALT, HEUSLER])


@pytest.mark.parametrize(
    ("formula", "amounts"),
    [
        ("SrTiO3", {38: 1, 22: 1, 8: 3}),
        ("NaN", {11: 1, 7: 1}),
        ("InF", {49: 1, 9: 1}),
        ("NO", {7: 1, 8: 1}),
        ("Ca3(PO4)2", {20: 3, 15: 2, 8: 8}),
        ("Ca3AlB2[OH]15", {20: 3, 13: 1, 5: 2, 8: 15, 1: 15}),
        ("Sr2Ti2O6", {38: 2, 22: 2, 8: 6}),
        ("Sr Ti O₃", {38: 1, 22: 1, 8: 3}),
    ],
)
def test_formulas_are_read_as_they_stand(formula: str, amounts: dict[int, int]) -> None:
    question = Question.of(formula=formula)
    assert dict(question.formula) == amounts
    assert Question.of(**question.to_dict()) == question


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"formula": "Fe+2"}, "has a charge"),
        ({"formula": "SrTiO3-"}, "has a charge"),
        ({"formula": "XqO2"}, "Xq, which is no element"),
        ({"formula": "srtio3"}, "cannot be read"),
        ({"formula": "SrTiO2.95"}, "whole amounts"),
        ({"formula": "SrTiO0"}, "whole amounts, at least 1"),
        ({"formula": "CuSO4.5H2O"}, r"write a hydrate as CuSO4\(H2O\)5"),
        ({"formula": "LiFePO4@C"}, "it has '@'"),
        ({"formula": "NaCl,KCl"}, "must be one formula; ask for more with questions=FILE"),
        ({"formula": ["NaCl"]}, "is no formula"),
        ({"formula": ""}, "is no formula"),
        ({"formula": float("nan")}, "is no formula.*in quotes"),
        ({"formula": True}, "is no formula"),
        ({"formula": "SrTiO3", "chemical_system": "Sr-Ti"}, "other elements than condition.chemical_system"),
        ({"formula": "SrTiO3", "elements": ["Sr", "O"]}, "elements that condition.elements does not allow"),
        ({"chemical_system": "Li-P-O", "elements": "Li,O"}, "elements that condition.elements does not allow"),
        ({"chemical_system": "Li-Pp"}, "'Pp', which is no element"),
        ({"elements": [8, 22]}, "8, which is no element"),
        ({"elements": [["Li"]]}, "which is no element"),
        ({"space_group": 231}, "whole number from 1 to 230"),
        ({"space_group": 0}, "whole number from 1 to 230"),
        ({"space_group": 14.0}, "whole number from 1 to 230"),
        ({"space_group": "Fm-3x"}, "Fm-3x is no space group"),
        ({"space_group": float("nan")}, "whole number from 1 to 230"),
        ({"space_group": 225, "crystal_system": "hexagonal"}, "225 is cubic.*leave one out"),
        ({"crystal_system": "rhombic"}, "none of triclinic, monoclinic"),
        ({"crystal_system": ["cubic"]}, "none of triclinic, monoclinic"),
        ({"z": 2}, "give condition.formula too"),
        ({"formula": "NaCl", "z": 0}, "whole number of at least 1"),
        ({"fromula": "NaCl"}, r"condition.fromula is not known; did you mean formula\? A model is asked for formula, "),
        ({"band_gap": math.inf}, "condition.band_gap=inf must be a finite number"),
        ({"band_gap": True}, "condition.band_gap=True must be a finite number"),
        ({"keep": "cell"}, "condition.structure and condition.keep go together"),
        ({"structure": "a.cif"}, "condition.structure and condition.keep go together"),
        ({"structure": "a.cif", "keep": ["cell", "site"]}, "condition.keep has 'site', which is none of cell, sites"),
        ({"structure": "a.cif", "keep": [-1]}, "condition.keep=-1 must be a whole number of at least 0"),
    ],
)
def test_a_bad_question_is_one_line(conditions: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        Question.of(**conditions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("symbol", "number"),
    [
        *(("Fm-3m", 225), ("Fm3m", 225), ("P2_1/c", 14), ("P21/c", 14), ("P 1 21/n 1", 14), ("Pnma", 62), ("P1", 1)),
        *(("Cmca", 64), ("Fd-3m:2", 227), ("R-3mH", 166), ("225", 225), (np.int64(225), 225)),
    ],
)
def test_space_groups_have_symbols(symbol: str, number: int) -> None:
    assert Question.of(space_group=symbol) == Question.of(space_group=number)


def test_nothing_asked_is_no_question() -> None:
    assert not Question.of()
    assert not Question.of(formula=None, space_group=None)
    assert Question.of(formula="NaCl", z=np.int64(2)) == Question.of(formula="NaCl", z="2")
    assert Question.of(space_group=1)


def test_a_crystal_meets_what_it_has() -> None:
    question = Question.of(formula="Sr2Ti2O6", crystal_system="cubic", elements="Sr,Ti,O,Ba")
    assert question.met_by("SrTiO3", 221) == {"formula": True, "elements": True, "crystal_system": True}
    assert question.met_by("Sr2TiO4", 139) == {"formula": False, "elements": True, "crystal_system": False}
    assert question.met_by(None, None) == {"formula": False, "elements": False, "crystal_system": False}
    for formula in ("O", "O2", "O4"):
        assert Question.of(formula=formula).met_by("O2", 12) == {"formula": True}  # so pymatgen writes it
    assert Question.of(formula="LiO").met_by("Li2O2", 194) == {"formula": True}
    assert Question.of(chemical_system="Sr-O").met_by("SrTiO3", 221) == {"chemical_system": False}
    assert Question.of(space_group=221).met_by("SrTiO3", None) == {"space_group": False}


def test_numbers_of_elements_and_sites_are_asked_for(known: KnownOrbits) -> None:
    question = Question.of(num_elements=3, num_sites=4)
    assert Question.of(**question.to_dict()) == question
    assert question.met_by("AlMnCu2", 225, 4) == {"num_elements": True, "num_sites": True}
    assert question.met_by("NaCl", 225, 2) == {"num_elements": False, "num_sites": False}
    assert question.met_by(None, None) == {"num_elements": False, "num_sites": False}
    answers = Answers(question, known, 8, ("num_elements", "num_sites"))
    drawn = answers.draw(4, np.random.default_rng(0))
    assert drawn.told.facts.tolist() == [[3, 4]] * 4
    assert {tuple(one.numbers.tolist()) for one in answers.lists} == {(13, 25, 29)}
    two = Answers(Question.of(formula="NaCl", num_sites=2), known, 8).draw(1, np.random.default_rng(0))
    assert two.counts.tolist() == [2]
    for conditions, message in (
        ({"num_sites": 7}, "no training crystal of this model answers to num_sites=7"),
        ({"formula": "NaCl", "num_sites": 3}, "condition.num_sites=3 does not fit the formula"),
        ({"formula": "NaCl", "num_sites": 2, "z": 2}, "condition.num_sites=2 does not fit the formula"),
        ({"formula": "NaCl", "num_sites": 8}, "has 8 sites in the smallest cell"),
    ):
        with pytest.raises(CrystensError, match=message):
            Answers(Question.of(**conditions), known, 8)
    for conditions in ({"formula": "NaCl"}, {"chemical_system": "Na-Cl"}, {"elements": "Na,Cl"}):
        with pytest.raises(CrystensError, match=r"condition\.num_elements"):
            Question.of(num_elements=3, **conditions)


def test_charge_neutral_crystals_are_asked_for(known: KnownOrbits) -> None:
    question = Question.of(charge_neutral="true", space_group=225)
    assert Question.of(**question.to_dict()) == question
    assert question.met_by("NaCl", 225) == {"charge_neutral": True, "space_group": True}
    assert question.met_by("Na2Cl", 225) == {"charge_neutral": False, "space_group": True}
    assert question.met_by(None, None) == {"charge_neutral": False, "space_group": False}
    assert Question.of(charge_neutral=False).met_by("Na2Cl", 225) == {"charge_neutral": True}
    facts = ("num_sites", "charge_neutral")
    drawn = Answers(question, known, 8, facts).draw(4, np.random.default_rng(0))
    assert drawn.told.facts[:, 1].tolist() == [1] * 4
    of_formula = Answers(Question.of(formula="NaCl"), known, 8, facts).draw(1, np.random.default_rng(0))
    assert of_formula.told.facts.tolist() == [[2, 1]]
    of_system = Answers(Question.of(chemical_system="Na-Cl"), known, 8, facts).draw(1, np.random.default_rng(0))
    assert of_system.told.facts[:, 1].isnan().all()  # its amounts are drawn
    with pytest.raises(CrystensError, match="no training crystal of this model answers to charge_neutral=False"):
        Answers(Question.of(charge_neutral=False), known, 8)
    with pytest.raises(CrystensError, match=r"formula=Na2Cl is not charge-neutral, and"):
        Question.of(formula="Na2Cl", charge_neutral=True)
    with pytest.raises(CrystensError, match=r"condition\.charge_neutral=perhaps must be true or false"):
        Question.of(charge_neutral="perhaps")


def brute_force(number: int, amounts: dict[int, int], most: int) -> set[tuple]:
    """All ways, as sorted pairs of element and place, by trying every multiset of few orbits."""
    group, multiplicities = space_group(number), primitive_multiplicities(number)
    options = [(element, place) for element in amounts for place in range(len(multiplicities))]
    found = set()
    for size in range(1, most + 1):
        for chosen in product(options, repeat=size):
            have = dict.fromkeys(amounts, 0)
            for element, place in chosen:
                have[element] += multiplicities[place]
            places = [place for _, place in chosen if group.positions[place].freedom == 0]
            if have == amounts and len(set(places)) == len(places):
                found.add(tuple(sorted(chosen)))
    return found


@pytest.mark.parametrize(
    ("number", "amounts"),
    [(225, {11: 1, 17: 1}), (221, {8: 3, 22: 1}), (139, {8: 2, 22: 1}), (2, {8: 2, 22: 1}), (194, {6: 2, 7: 2})],
)
def test_ways_are_those_that_brute_force_finds(number: int, amounts: dict[int, int]) -> None:
    ways = Assignments(number, amounts)
    found = brute_force(number, amounts, most=4)
    assert ways.total == len(found)
    random = np.random.default_rng(0)
    drawn = [ways.draw(random) for _ in range(40 * len(found))]
    seen = {tuple(sorted(zip(one.numbers.tolist(), one.places.tolist(), strict=True))) for one in drawn}
    assert seen == found


def test_ways_are_drawn_by_the_weights_of_their_positions() -> None:
    weights = np.ones(len(space_group(225).positions))
    weights[2] = 3  # position c, of two sites in the primitive cell
    ways = Assignments(225, {1: 1, 6: 2}, weights)  # H on a or b, two C on c, or one on each of a and b: not with H
    assert ways.total == 2 * 3
    fewer = Assignments(225, {1: 1, 6: 2}, weights, most_orbits=1)
    assert fewer.total == 0
    with pytest.raises(ValueError, match="no way"):
        fewer.draw(np.random.default_rng(0))


def test_known_orbits_come_back_from_tensors(known: KnownOrbits) -> None:
    again = KnownOrbits.from_tensors(known.to_tensors())
    assert len(again) == len(known) == 4
    for one, other in zip(known.crystals, again.crystals, strict=True):
        assert one.space_group == other.space_group
        assert one.numbers.tolist() == other.numbers.tolist()
        assert one.places.tolist() == other.places.tolist()
    assert again.crystals[2].amounts == {11: 1, 17: 1}
    assert again.most_sites == 5
    assert len(KnownOrbits.from_tensors(KnownOrbits([]).to_tensors())) == 0


def test_elements_that_replace_each_other_are_alike() -> None:
    apart = unlikeness()
    assert apart[38, 56] < apart[38, 22] < apart[38, 8]  # Sr: Ba before Ti before O
    assert (apart == apart.T).all()
    assert not apart.diagonal().any()
    assert np.isfinite(apart).all()


def test_a_formula_takes_known_crystals_with_the_most_alike_elements_exchanged(known: KnownOrbits) -> None:
    more = KnownOrbits([*known.crystals, Orbits(225, np.array([38, 40]), np.array([0, 1]))])  # of Sr and Zr
    answers = Answers(Question.of(formula="SrZrO3"), more, 8)
    drawn = answers.draw(3, np.random.default_rng(0))
    assert drawn.counts.tolist() == [3, 3, 3]
    elements = drawn.told.allowed.elements
    assert elements[0, :3].sum(dim=1).tolist() == [1, 1, 1]
    assert elements[0, :3].int().argmax(dim=1).tolist() == [8, 38, 40]  # Sr for Ca and Zr for Ti
    assert drawn.told.allowed.positions[0, :3].int().argmax(dim=1).tolist() == [3, 0, 1]
    assert drawn.told.allowed.groups[0].nonzero().flatten().tolist() == [221]
    assert drawn.told.allowed.elements[0, 3:].all()


def test_a_formula_of_no_known_kind_is_put_on_positions(known: KnownOrbits) -> None:
    answers = Answers(Question.of(formula="Na3Cl"), known, 8)
    assert answers.ways
    drawn = answers.draw(50, np.random.default_rng(0))
    multiplicities = {number: primitive_multiplicities(number) for number in (221, 225)}
    seen = set()
    for row, count in enumerate(drawn.counts.tolist()):
        (group,) = drawn.told.allowed.groups[row].nonzero().flatten().tolist()
        numbers = drawn.told.allowed.elements[row, :count].int().argmax(dim=1).tolist()
        places = drawn.told.allowed.positions[row, :count].int().argmax(dim=1).tolist()
        amounts = {11: 0, 17: 0}
        for number, place in zip(numbers, places, strict=True):
            amounts[number] += multiplicities[group][place]
        assert amounts == {11: 3, 17: 1}
        assert list(zip(numbers, places, strict=True)) == sorted(zip(numbers, places, strict=True))
        seen.add(group)
    assert seen == {221, 225}


def test_a_chemical_system_gives_each_orbit_an_element(known: KnownOrbits) -> None:
    drawn = Answers(Question.of(chemical_system="Na-Cl"), known, 8).draw(4, np.random.default_rng(0))
    assert drawn.counts.tolist() == [2] * 4
    assert drawn.told.allowed.elements[:, :2].int().argmax(dim=2).tolist() == [[11, 17]] * 4
    assert drawn.told.allowed.groups.all()
    assert drawn.told.allowed.positions.all()


def test_groups_and_elements_that_are_asked_are_all_that_is_allowed(known: KnownOrbits) -> None:
    drawn = Answers(Question.of(crystal_system="cubic", elements="Na,Cl,O"), known, 8).draw(9, np.random.default_rng(0))
    assert (drawn.told.allowed.groups.sum(dim=1) == 1).all()  # that of the crystal whose number of orbits was drawn
    groups = drawn.told.allowed.groups.int().argmax(dim=1).tolist()
    assert {(group, count) for group, count in zip(groups, drawn.counts.tolist(), strict=True)} == {
        (221, 3),
        (225, 2),
        (225, 3),
    }
    assert (drawn.told.allowed.elements.sum(dim=2) == 3).all()
    assert set(drawn.counts.tolist()) == {2, 3}
    one = Answers(Question.of(space_group=221), known, 8).draw(2, np.random.default_rng(0))
    assert one.counts.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"space_group": 14}, "no training crystal of this model has space group 14"),
        ({"crystal_system": "hexagonal"}, "no training crystal of this model has space group hexagonal"),
        ({"formula": "UO2"}, "U occurs in no training crystal"),
        ({"formula": "Na4Cl4"}, "has 8 sites in the smallest cell that is asked for; this model draws at most 5"),
        ({"formula": "NaCl", "z": 3}, "has 6 sites in the smallest cell"),
        ({"formula": "NaCl", "space_group": 221, "z": 2}, "can stand on no Wyckoff positions in space group 221"),
        ({"chemical_system": "Na-Cl-O-Ca"}, "no training crystal of this model has 4 elements"),
    ],
)
def test_what_cannot_be_met_is_one_line(known: KnownOrbits, conditions: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        Answers(Question.of(**conditions), known, 8)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A network of few weights that was shown parts of the prototypes."""
    return crystens.load(trained(tmp_path_factory.mktemp("asked"), "model.shown=0.8"), device="cpu")


def trained(folder: Path, *more: str) -> Path:
    lines = [
        *SMALL_ORBITS,
        "data=prototypes",
        "data.limits.max_sites=null",
        f"run_folder={folder / 'run'}",
        *more,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return tasks.train(compose("train", overrides=lines))


def test_samples_are_what_was_asked(generator: Generator) -> None:
    for formula in ("KBr", "SrTiO3"):
        for item in generator.sample(6, seed=1, as_="decoded", formula=formula):
            assert item.crystal is None or item.merged_sites or item.crystal.formula == formula
        assert any(item is not None for item in generator.sample(6, seed=1, formula=formula))
    for item in generator.sample(6, as_="decoded", space_group=225):
        assert item.generated_space_group == 225
    for item in generator.sample(6, as_="decoded", chemical_system="Ga-As"):
        assert item.crystal is None or set(item.crystal.numbers.tolist()) <= {31, 33}
    assert generator.conditions[:2] == ("formula", "chemical_system")
    with pytest.raises(CrystensError, match=r"^question 2, {'chemical_system': '.*'}: "):
        generator.answers([Question.of(formula="KBr"), Question.of(chemical_system="Na-K-Rb-Cs-O-S-F-Cl-Br")])
    images = generator.sample_images(6, seed=2, formula="KBr")
    assert torch.equal(images, generator.sample_images(6, seed=2, formula="KBr"))
    assert not torch.equal(images, generator.sample_images(6, seed=2, formula="NaCl"))


def test_sample_py_says_what_was_asked_and_what_came(generator: Generator, tmp_path: Path) -> None:
    run = tmp_path / "one"
    checkpoint = trained(tmp_path, "model.shown=0.8") / "checkpoints" / "last.ckpt"
    lines = [f"checkpoint={checkpoint}", "num_samples=5", "condition.formula='KBr'", f"run_folder={run}", "device=cpu"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tasks.sample(compose("sample", overrides=lines))
    rows = list(csv.DictReader((run / "crystals.csv").open()))
    assert [row["asked"] for row in rows] == ["formula KBr"] * 5
    met = [row["formula_met"] == "true" for row in rows]
    assert met == [row["formula"] == "KBr" for row in rows]
    assert {row["space_group_met"] for row in rows} == {""}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["formula_met_rate"]["value"] == sum(met) / 5
    assert metrics["provenance"]["value"]["asked"] == [{"formula": "KBr"}]

    table = tmp_path / "questions.csv"
    table.write_text("formula,space_group\nNaCl,\n,221\n")
    lines = [f"checkpoint={checkpoint}", "num_samples=3", f"questions={table}", f"run_folder={tmp_path / 'many'}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tasks.sample(compose("sample", overrides=[*lines, "device=cpu"]))
    rows = sorted(csv.DictReader((tmp_path / "many" / "crystals.csv").open()), key=lambda row: int(row["index"]))
    assert [row["asked"] for row in rows] == ["formula NaCl"] * 3 + ["space_group 221"] * 3
    assert [row["formula_met"] != "" for row in rows] == [True] * 3 + [False] * 3
    assert {row["generated_space_group"] for row in rows[3:]} == {"221"}
    metrics = json.loads((tmp_path / "many" / "metrics.json").read_text())
    assert metrics["formula_met_rate"]["count"] == 3
    with pytest.raises(CrystensError, match="not both"), initialize_config_dir(str(CONF), version_base="1.3"):
        tasks.sample(compose("sample", overrides=[*lines, "condition.space_group=1"]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "formula,space_group\nNaCl,\nXy2,3\n", r"line 3: condition.formula=Xy2 has Xy, which is no element"),
        ("a.csv", "formula,space_group\nNaCl\n", "line 2 has another number of columns"),
        ("a.csv", "formula,space_group\n,\n", "line 2 asks for nothing"),
        ("a.csv", "formula\n", "holds no questions"),
        ("a.csv", "space_group\n2.5\n", "line 2: condition.space_group=2.5 is no space group"),
        ("a.csv", "space_group\n²\n", "line 2: condition.space_group=² must be a whole number"),
        ("a.csv", "formula;space_group\nNaCl;225\n", "must have commas between its columns"),
        ("a.csv", "formula,formula\nNaCl,KCl\n", "two columns of one name"),
        ("a.csv", 'formula\n"NaCl\nKCl\n', "is no CSV: unexpected end"),
        ("a.jsonl", '{"elements": {"Li": 1}}\n', "line 1: condition.elements has"),
        ("a.csv", "bandgap\nwide\n", "line 2: condition.bandgap='wide' is no number. A model is asked for formula, "),
        ("a.csv", "band_gap\nnan\n", "line 2: condition.band_gap=nan must be a finite number"),
        ("a.jsonl", '{"formula": "NaCl"}\n{"formula": NaCl}\n', "line 2 is no JSON"),
        ("a.jsonl", '["NaCl"]\n', "line 1 is no JSON object"),
        ("a.txt", "NaCl", r"neither .csv nor .jsonl"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CrystensError, match=message) as caught:
        read_questions(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_table_of_questions_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("formula,space_group,z\nNaN,225,\n,14,\nSrTiO3,,1\n")
    (tmp_path / "a.jsonl").write_text(
        '{"formula": "NaN", "space_group": 225}\n\n{"space_group": 14}\n{"formula": "SrTiO3", "z": 1}\n'
    )
    assert read_questions(tmp_path / "a.csv") == read_questions(tmp_path / "a.jsonl")
    (tmp_path / "excel.csv").write_bytes(
        "formula, space_group,z,\r\nNaN, 225,,\r\n\r\n,P21/c,,\r\nSrTiO3,,1,\r\n".encode("utf-8-sig")
    )
    assert read_questions(tmp_path / "excel.csv") == read_questions(tmp_path / "a.csv")
    with pytest.raises(CrystensError, match="no questions at"):
        read_questions(tmp_path / "b.csv")


def test_a_released_model_refuses_a_property_far_from_its_training_crystals() -> None:
    released = crystens.load("mp_52", device="cpu")
    assert released.answers([Question.of(band_gap=3.0)])
    message = r"condition.band_gap=500 is too far from the training crystals, which have 0.698 in the mean"
    with pytest.raises(CrystensError, match=message):
        released.answers([Question.of(band_gap=500)])


def test_a_model_that_was_shown_nothing_is_not_asked(tmp_path: Path) -> None:
    plain = crystens.load(trained(tmp_path, "model.shown=0"), device="cpu")
    with pytest.raises(CrystensError, match=r"generates without conditions; .*model.shown=0.5 can be asked"):
        plain.sample(1, formula="KBr")
    with pytest.raises(CrystensError, match=r"condition\.formul is not known"):
        plain.sample(1, formul="KBr")
    released = crystens.load("perov_5", device="cpu")
    assert plain.conditions == released.conditions == ()
    with pytest.raises(CrystensError, match="generates without conditions"):
        released.sample(1, space_group=221)


@pytest.mark.parametrize(
    ("argument", "passed"),
    [
        ("condition.formula=Ca3(PO4)2", "condition.formula='Ca3(PO4)2'"),
        ("condition.formula=NaN", "condition.formula='NaN'"),
        ("condition.formula='SrTiO3'", "condition.formula='SrTiO3'"),
        ("condition.formula=null", "condition.formula=null"),
        ("++condition.formula=NaN", "++condition.formula='NaN'"),
        ("condition.elements=Li,O", "condition.elements='Li,O'"),
        ("condition.elements=[Li,O]", "condition.elements=[Li,O]"),
        ("condition.space_group=14", "condition.space_group=14"),
        ("condition.space_group=14,225", "condition.space_group=14,225"),
        ("condition.space_group=Fd-3m:2", "condition.space_group='Fd-3m:2'"),
        ("-m", "-m"),
    ],
)
def test_formulas_are_taken_from_the_command_line_as_they_stand(argument: str, passed: str) -> None:
    assert command_line._as_written(argument) == passed
    if argument.startswith("condition.formula"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("sample", overrides=[passed])
        told = argument.partition("=")[2].strip("'")
        assert cfg.condition.formula == (None if told == "null" else told)
        assert not isinstance(cfg.condition.formula, float) or not math.isnan(cfg.condition.formula)
