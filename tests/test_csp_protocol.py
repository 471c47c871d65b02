"""Structure prediction of files and folders: which samples answer which references, and rates worked out by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from crystens.asking.question import Question, composition_asked
from crystens.chemistry.formulas import ReducedComposition, reduced_composition
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.evaluate import main
from crystens.metrics.crystal_table import crystal_row, failed_row
from crystens.protocol.answers import find_answers
from crystens.protocol.csp_protocol import CspOptions, CspProtocol
from crystens.protocol.judgement import Judgement
from crystens.protocol.perovskites import with_metals_exchanged

pytest.importorskip("smact", reason="the extra metrics is not installed")

_PEROVSKITE = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskite(a: int, b: int, x: int = 8, length: float = 4.0) -> Crystal:
    return Crystal([length] * 3, [90] * 3, 1, [a, b, x, x, x], _PEROVSKITE)


def pair(a: int, b: int, moved: float = 0.0) -> Crystal:
    """The structure of CsCl in a cell of 4 angstrom, with the second atom moved by so much along x, angstrom."""
    return Crystal([4] * 3, [90] * 3, 1, [a, b], np.array([[0, 0, 0], [0.5 + moved / 4, 0.5, 0.5]]))


def judged(protocol: CspProtocol, samples: Sequence[Crystal | None]) -> Judgement:
    rows = [
        failed_row(index, "no crystal") if crystal is None else crystal_row(index, crystal)
        for index, crystal in enumerate(samples)
    ]
    protocol.check(samples)
    return protocol.judge(rows, {index: crystal for index, crystal in enumerate(samples) if crystal is not None})


def values(judgement: Judgement) -> dict[str, float]:
    return {name: one["value"] for name, one in judgement.metrics.items()}


def test_rates_and_distances_are_those_worked_out_by_hand() -> None:
    """CsCl is matched twice, SrTiO3 is missed and fails, and LiF4, which no charges balance, fails and is matched.

    Two atoms that are moved against each other by d are each d / 2 away once one crystal is put upon the other, and the
    cube root of volume per atom is that of 32.
    """
    tetrafluoride = Crystal([4] * 3, [90] * 3, 1, [3, 9, 9, 9, 9], _PEROVSKITE)
    references = [pair(55, 17), perovskite(38, 22), tetrafluoride]
    samples = [pair(55, 17, 0.4), pair(55, 17, 0.2), perovskite(22, 38), None, None, tetrafluoride]
    judgement = judged(CspProtocol(references, "three", CspOptions()), samples)
    found = values(judgement)
    first, second = 0.2 / 32 ** (1 / 3), 0.1 / 32 ** (1 / 3)
    expected = {
        "match_rate": 1 / 3,
        "rmse": first,
        "match_rate_of_valid": 1 / 3,
        "rmse_of_valid": first,
        "match_rate_at_2": 2 / 3,
        "rmse_at_2": (second + 0) / 2,
        "match_rate_of_valid_at_2": 1 / 3,
        "rmse_of_valid_at_2": second,
        "metre": 2 / 3,
        "crmse": (second + 0.5 + 0) / 3,
        "composition_rate": 4 / 6,
        "missing_samples": 0,
        "judged_references": 3,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert judgement.metrics["match_rate"]["count"] == 3
    assert [row["matched"] for row in judgement.rows] == [True, True, False, False, False, True]
    assert [row["reference"] for row in judgement.rows] == ["0", "0", "1", "1", "2", "2"]
    assert judgement.rows[1]["rms_distance"] == pytest.approx(second, abs=1e-6)
    by_size = {row["num_sites"]: row for row in judgement.by_num_sites}
    assert list(by_size) == [2, 5, None]
    assert (by_size[2]["match_rate"], by_size[5]["match_rate"]) == (1, 0)
    assert (by_size[5]["reference_crystals"], by_size[5]["match_rate_at_2"]) == (2, 0.5)
    assert len({tuple(row) for row in judgement.by_num_sites}) == 1


def test_a_sample_whose_row_is_not_valid_does_not_count_as_valid() -> None:
    row = {**crystal_row(0, pair(55, 17)), "structurally_valid": False}
    metrics = CspProtocol([pair(55, 17)], "one", CspOptions()).judge([row], {0: pair(55, 17)}).metrics
    assert (metrics["match_rate"]["value"], metrics["match_rate_of_valid"]["value"]) == (1, 0)


def test_metre_is_not_computed_beyond_the_most_pairs_and_says_so() -> None:
    references = [perovskite(38, 22), perovskite(22, 38)]
    swapped = references[::-1]
    assert values(judged(CspProtocol(references, "two", CspOptions(most_pairs=4)), swapped))["metre"] == 1
    metrics = judged(CspProtocol(references, "two", CspOptions(most_pairs=3)), swapped).metrics
    assert (metrics["metre"]["value"], metrics["crmse"]["value"], metrics["match_rate"]["value"]) == (None, None, 0)
    assert "more pairs" in metrics["metre"]["description"]


def test_perov_5_forgives_metals_and_tells_kinds_apart() -> None:
    """Of four references the first has its other polymorph in train, the second not, the third is matched exchanged."""
    references = [perovskite(38, 22), perovskite(56, 40), perovskite(20, 22), perovskite(22, 22)]
    samples = [perovskite(38, 22), perovskite(40, 56), perovskite(22, 20), perovskite(22, 22)]
    train = [perovskite(22, 38), perovskite(22, 20), perovskite(30, 40)]
    protocol = CspProtocol(references, "perov_5", CspOptions(data_set="perov_5"), train=lambda: train)
    metrics = judged(protocol, samples).metrics
    found = {name: one["value"] for name, one in metrics.items()}
    assert (found["match_rate"], found["match_rate_metals_forgiven"]) == (0.5, 1)
    assert found["coin_match_rate"] == (1 + 3 / 2) / 4
    assert found["other_polymorph_in_train_rate"] == 0.5
    assert "reaches a match rate of 0.875" in metrics["other_polymorph_in_train_rate"]["statement"]
    assert (found["match_rate_other_in_train"], metrics["match_rate_other_in_train"]["count"]) == (0.5, 2)
    assert (found["match_rate_other_not_in_train"], found["match_rate_metals_forgiven_other_not_in_train"]) == (0, 1)
    assert (found["match_rate_one_metal"], metrics["match_rate_one_metal"]["count"]) == (1, 1)
    assert metrics["match_rate_of_valid"]["published"] == {"CDVAE": 0.4531, "DiffCSP": 0.5202}


def test_only_perovskites_of_two_metals_are_exchanged(nacl: Crystal) -> None:
    with pytest.raises(CrystensError, match="is no ABX3 of Perov-5"):
        with_metals_exchanged(nacl)
    assert with_metals_exchanged(perovskite(38, 22)).numbers.tolist() == [22, 38, 8, 8, 8]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"formula": "Ca3(PO4)2", "space_group": 14}, ((8, 8), (15, 2), (20, 3))),
        ({"formula": "Sr2Ti2O6"}, ((8, 3), (22, 1), (38, 1))),
        ({"chemical_system": "Sr-Ti-O"}, None),
    ],
)
def test_the_composition_that_was_asked_is_read_from_its_text(conditions: dict, expected: tuple | None) -> None:
    assert composition_asked(str(Question.of(**conditions))) == expected


def compositions(*crystals: Crystal | None) -> list[ReducedComposition | None]:
    return [None if crystal is None else reduced_composition(crystal.numbers) for crystal in crystals]


_A, _B, _C = compositions(pair(55, 17), perovskite(38, 22), pair(11, 17))


@pytest.mark.parametrize(
    ("samples", "more", "expected", "said"),
    [
        ([_A, _B, _C], {}, [[0], [1], [2]], "one sample for each"),
        ([_A, None, _B, _B, _C, _A], {}, [[0, 1], [2, 3], [4, 5]], "2 samples for each reference, in blocks"),
        ([_A, _B, _C, _A, _B, None], {}, [[0, 3], [1, 4], [2, 5]], "in rounds"),
        ([None] * 6, {"rounds": 2}, [[0, 3], [1, 4], [2, 5]], "in rounds"),
        ([_B, _A, _C, None, _B], {"order": "composition", "each": 2}, [[1, -1], [0, 4], [2, -1]], "that they have"),
        ([None, _B, _B, _A, _C, _C], {"asked": [_A, _B, _B, _A, _C, _C]}, [[0, 3], [1, 2], [4, 5]], "asked for"),
        ([_A, _B, _C], {"asked": [_B, _A, _C], "order": "blocks"}, [[0], [1], [2]], "one sample for each"),
    ],
)
def test_samples_are_assigned(samples: list, more: dict, expected: list, said: str) -> None:
    answers = find_answers([_A, _B, _C], samples, **more)
    assert answers.samples.tolist() == expected
    assert said in answers.statement


def test_polymorphs_get_samples_of_their_own_or_share_those_of_the_composition() -> None:
    references, asked = [_A, _B, _A], [_A, _A, _B, _B, _A, _A]
    assert find_answers(references, asked, asked).samples.tolist() == [[0, 1], [2, 3], [4, 5]]
    once = [_A, _A, _B, _B]
    answers = find_answers(references, once, once)
    assert answers.samples.tolist() == [[0, 1], [2, 3], [0, 1]]
    assert "answer all references of it" in answers.statement


def test_references_that_nobody_asked_about_stand_in_no_rate_and_it_is_said() -> None:
    answers = find_answers([_A, _B, _C], [_C, _A], [_C, _A])
    assert (answers.references.tolist(), answers.samples.tolist()) == ([0, 2], [[1], [0]])
    assert "2 of 3 references have samples, and these are judged" in answers.statement


@pytest.mark.parametrize(
    ("samples", "more", "message"),
    [
        ([_A, _B, _C, _A], {}, "4 samples are no multiple of 3 references"),
        ([_A], {}, "1 samples are no multiple of 3"),
        ([_A, _B, _C], {"each": 2}, "3 samples are 1 for each of 3 references, but --each is 2"),
        ([_A, _B, _C], {"each": 0}, "--each must be at least 1"),
        ([], {}, "there is nothing to judge"),
        ([_B, _C, _A], {}, "sample 0 is SrTiO3 and reference 0 is CsCl. Sort them"),
        ([None] * 6, {}, "give --order blocks"),
        (
            [_A, compositions(pair(3, 9))[0]],
            {"order": "composition"},
            "sample 1 is LiF, which none of 3 references has",
        ),
        ([_A], {"asked": compositions(pair(3, 9))}, "sample 0 was asked for LiF, which none of 3"),
        ([_A, _A, _B], {"asked": [_A, _A, _B]}, "1 samples of SrTiO3 are not 2 for each of its 1 references"),
        ([_A, _A], {"order": "composition", "each": 1}, "2 samples of CsCl are not 1 for each of its 1"),
        ([None], {"order": "composition"}, "no sample has a composition"),
    ],
)
def test_what_does_not_fit_is_one_line(samples: list, more: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message):
        find_answers([_A, _B, _C], samples, **more)


def write_table(path: Path, crystals: Sequence[Crystal | None]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["material_id", "cif"])
        for place, crystal in enumerate(crystals):
            table.writerow([str(place), "no crystal" if crystal is None else write_cif(crystal)])
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tables of three splits: two titanates and a zirconate are judged."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_table(folder / "train.csv", [perovskite(22, 38), perovskite(20, 40, length=4.1), perovskite(19, 73)])
    write_table(folder / "val.csv", [perovskite(56, 22)])
    write_table(folder / "test.csv", [perovskite(38, 22), perovskite(56, 40), perovskite(20, 22)])
    return folder


def entries(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def evaluate(source: Path, out: Path, data: Path, *more: str) -> int:
    known = ["--protocol", "csp", "--reference", "perov_5", "--data-path", str(data), "--workers", "1"]
    return main([str(source), "--out", str(out), *known, *more])


def test_a_peers_table_is_judged_beside_the_baseline(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    samples = [perovskite(38, 22), None, perovskite(40, 56), perovskite(40, 56), None, None]
    out = tmp_path / "out"
    assert evaluate(write_table(tmp_path / "peer.csv", samples), out, data, "--baseline") == 0
    metrics = entries(out)
    assert metrics["match_rate"]["value"] == metrics["match_rate_at_2"]["value"] == 1 / 3
    assert metrics["match_rate_metals_forgiven"]["value"] == 2 / 3
    assert metrics["composition_rate"]["value"] == 3 / 6
    assert metrics["failures"]["value"] == 3
    assert metrics["other_polymorph_in_train_rate"]["value"] == 1 / 3
    assert metrics["baseline_match_rate"]["count"] == 3
    assert metrics["provenance"]["value"]["protocol"]["reference"] == {"name": "perov_5 (test)", "count": 3}
    told = capsys.readouterr().out
    assert "DiffCSP, published" in told
    assert "substitution baseline" in told
    assert "A fair coin for A and B reaches 50.00 % with one sample" in told
    page = (out / "report.html").read_text()
    assert "<h2>Structure prediction by number of sites of the reference</h2>" in page
    assert "52.02 %" in page
    rows = {row["num_sites"]: row for row in csv.DictReader((out / "by_num_sites.csv").open())}
    assert float(rows["5"]["match_rate"]) == pytest.approx(1 / 3, abs=1e-4)
    assert rows["5"]["baseline_match_rate"] != ""
    table = sorted(csv.DictReader((out / "crystals.csv").open()), key=lambda row: int(row["index"]))
    assert [row["matched"] for row in table] == ["true", *["false"] * 5]


def test_every_evaluation_of_a_result_file_is_a_round(data: Path, tmp_path: Path) -> None:
    first = [perovskite(22, 38), perovskite(56, 40), perovskite(22, 20)]
    second = [perovskite(38, 22), perovskite(40, 56), perovskite(22, 20)]
    path = tmp_path / "eval_diff.pt"
    rounds = {
        "frac_coords": [np.concatenate([one.coordinates for one in own]) for own in (first, second)],
        "atom_types": [np.concatenate([one.numbers for one in own]) for own in (first, second)],
        "num_atoms": [[5, 5, 5]] * 2,
        "lengths": [[one.lengths for one in own] for own in (first, second)],
        "angles": [[one.angles for one in own] for own in (first, second)],
    }
    torch.save({key: torch.tensor(np.array(value)) for key, value in rounds.items()}, path)
    assert evaluate(path, tmp_path / "out", data) == 0
    metrics = entries(tmp_path / "out")
    assert (metrics["match_rate"]["value"], metrics["match_rate_at_2"]["value"]) == (1 / 3, 2 / 3)
    assert "in rounds" in metrics["judged_references"]["statement"]


def sample_folder(folder: Path, asked: Sequence[str], crystals: Sequence[Crystal | None]) -> Path:
    """A folder as sample.py writes it, with the columns that are looked at."""
    (folder / "cifs").mkdir(parents=True)
    lines = ["index,file,status,reason,merged_sites,asked,formula_met"]
    for index, (text, crystal) in enumerate(zip(asked, crystals, strict=True)):
        if crystal is None:
            lines.append(f'{index},,failed,no site,,"{text}",false')
            continue
        (folder / "cifs" / f"{index:06d}.cif").write_text(write_cif(crystal))
        lines.append(f'{index},cifs/{index:06d}.cif,ok,,0,"{text}",{str(crystal.formula in text).lower()}')
    (folder / "crystals.csv").write_text("\n".join([*lines[:1], *lines[:0:-1], ""]))
    return folder


def test_a_folder_of_ours_is_judged_by_what_was_asked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    asked = ["formula BaZrO3, z 1"] * 2 + ["formula SrTiO3, z 1"] * 2
    samples = [None, perovskite(56, 40), perovskite(38, 22), perovskite(38, 40)]
    folder = sample_folder(tmp_path / "samples", asked, samples)
    assert evaluate(folder, tmp_path / "out", data) == 0
    metrics = entries(tmp_path / "out")
    assert (metrics["match_rate"]["value"], metrics["match_rate_at_2"]["value"]) == (0.5, 1)
    assert (metrics["judged_references"]["value"], metrics["judged_references"]["count"]) == (2, 3)
    assert "1 have none and enter no rate" in capsys.readouterr().out
    assert metrics["composition_rate"]["value"] == 0.5
    assert metrics["formula_met_rate"]["value"] == 0.5
    table = sorted(csv.DictReader((tmp_path / "out" / "crystals.csv").open()), key=lambda row: int(row["index"]))
    assert [row["asked"] for row in table] == asked
    other = sample_folder(tmp_path / "system", ["chemical_system Sr-Ti-O"] * 3, [None] * 3)
    assert evaluate(other, tmp_path / "out", data) == 1
    assert "sample 0 was asked for chemical_system Sr-Ti-O, and not for a formula" in capsys.readouterr().err
    assert entries(tmp_path / "out") == metrics  # what cannot be judged leaves the results of before


def test_files_whose_numbers_have_another_order_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As text 10.cif comes before 2.cif, and of one composition nothing else would show it."""
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for number in (1, 2, 10):
        (cifs / f"{number}.cif").write_text(write_cif(perovskite(38, 22)))
    assert evaluate(cifs, tmp_path / "out", data) == 1
    assert "10.cif is read where 2.cif stands by its number" in capsys.readouterr().err
    for number in (1, 2, 10):
        (cifs / f"{number}.cif").rename(cifs / f"{number:04d}.cif")
    assert evaluate(cifs, tmp_path / "out", data) == 1
    assert "not in the order of the references" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--first", "4"], "--first 4: the reference has 3 crystals"),
        (["--first", "0"], "at least 1"),
        (["--first", "1", "--reference-number", "1"], "not together with --reference-number"),
        (["--cutoffs", "1", "1"], "--cutoffs are those of --protocol cdvae"),
        (["--energy-model", "chgnet"], "give --protocol cdvae too"),
        (["--baseline", "--split", "train"], "has no train split"),
        (["--first", "2"], "3 samples are no multiple of 2 references"),
        (["--protocol", "cdvae", "--baseline"], "--baseline belongs to --protocol csp"),
        (["--protocol", "cdvae", "--most-pairs", "9"], "--most-pairs belongs to --protocol csp"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    samples = write_table(tmp_path / "peer.csv", [perovskite(38, 22), perovskite(56, 40), perovskite(20, 22)])
    assert evaluate(samples, tmp_path / "out", data, *more) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "metrics.json").exists()
