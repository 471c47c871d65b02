"""python -m crystens.evaluate judges files as they are."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import write as write_extended_xyz

from crystens.cif.write import GENERATED_GROUP, write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.evaluate import main
from crystens.metrics.statistics import STATISTICS
from crystens.samples.references import drawn, read_real, read_reference
from crystens.symmetry.space_groups import symmetrised


@pytest.fixture
def cifs(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> Path:
    """A folder with two good crystals, one with an atom listed twice, one with two near atoms, and two broken files."""
    double = Crystal([4, 4, 4], [90] * 3, 1, [55, 17, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))
    near = Crystal([4, 4, 4], [90] * 3, 1, [6, 8], np.array([[0, 0, 0], [0.1, 0, 0]]))
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": triclinic, "c": double, "d": near}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    (folder / "e.cif").write_text("")
    (folder / "f.cif").write_text("no cif at all\n")
    return folder


def entries(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_files_become_rows_metrics_and_a_report(cifs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out)]) == 0
    with (out / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{name}.cif" for name in "abcdef"]
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["failed"] * 2
    assert rows[0]["space_group"] == "225"
    assert rows[4]["reason"]
    metrics = entries(out)
    assert metrics["decoded_rate"]["value"] == 4 / 6
    assert metrics["structural_validity"]["value"] == 2 / 6
    assert not set(STATISTICS) & {*metrics, *rows[0]}
    assert "6 samples were judged" in (out / "report.html").read_text()


def test_judging_again_starts_again(cifs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out)]) == 0
    first = (out / "crystals.csv").read_bytes()
    assert main([str(cifs), "--out", str(out)]) == 0
    assert (out / "crystals.csv").read_bytes() == first


def test_a_source_that_cannot_be_read_leaves_the_results_of_before(
    cifs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken.pt"
    assert main([str(cifs), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    broken.write_text("a line of text, which is no archive\n")
    assert main([str(broken), "--out", str(out)]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main([str(out), "--out", str(out)]) == 1
    assert "is SOURCE, which would be overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_interruption_leaves_no_numbers_of_before_and_says_so_in_a_line(
    cifs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out)]) == 0

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crystens.evaluate.summarise", interrupted)
    capsys.readouterr()
    assert main([str(cifs), "--out", str(out)]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: interrupted")
    assert [path.name for path in out.iterdir()] == ["crystals.csv"]


def test_results_that_cannot_be_written_are_one_line(cifs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    (out / f".metrics.json.{os.getpid()}.part").mkdir(parents=True)  # in the way of the file
    assert main([str(cifs), "--out", str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot write {out / 'metrics.json'}: Is a directory" in error


def test_crystals_judged_against_themselves_have_distance_0(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": triclinic}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    assert main([str(folder), "--out", str(tmp_path / "out"), "--reference", str(folder)]) == 0
    metrics = entries(tmp_path / "out")
    assert {metrics[name]["value"] for name in metrics if name.startswith("ks_")} == {0.0}
    assert metrics["novel_formula_rate"]["value"] == 0
    assert metrics["provenance"]["value"]["reference"]["split"] == "all"


def test_reference_of_a_table_without_splits_is_all_of_it(shared_data: Path) -> None:
    folder = shared_data / "perov_5"
    reference = read_reference("perov_5", str(folder / "val.csv.gz"))
    assert (reference.name, reference.count) == ("perov_5", 3787)
    assert len(reference.values["Z"]) == 5 * 3787
    assert set(reference.values["alpha"].tolist()) == {90.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["{cifs}", "--reference", "perov_5"], "--reference perov_5 needs its data: give --data-path PATH"),
        (["{cifs}", "--reference", "elsewhere"], "elsewhere does not exist"),
        (["{cifs}", "--data-path", "x"], "give --reference NAME too"),
        (["{cifs}", "--reference", "{cifs}", "--data-path", "x"], "is a source: leave --data-path out"),
        (["{cifs}", "--reference", "perov5"], "or the path of any source"),
        (["{cifs}", "--reference", "perov5", "--data-path", "{cifs}"], "such as {cifs}, without --data-path"),
        (["{cifs}", "--reference", "{cifs}", "--reference-number", "5"], "give --reference NAME, and --protocol cdvae"),
        (["{cifs}", "--reference-number", "0"], "--reference-number must be at least 1, got 0"),
        (["{cifs}", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (
            ["{cifs}", "--protocol", "cdvae", "--reference", "{cifs}", "--cutoffs", "inf", "4"],
            "cut-offs must be above 0 and finite",
        ),
        (["{cifs}", "--reference", "{cifs}", "--split", "val"], "gives no splits"),
        (["{cifs}", "--protocol", "cdvae"], "give --reference NAME"),
        (["{cifs}", "--protocol", "cdvae", "--reference", "{cifs}"], "none of {cifs}: give --cutoffs STRUCTURE"),
        (["{cifs}", "--protocol", "cdvae", "--reference", "{cifs}", "--cutoffs", "0", "4"], "cut-offs must be above 0"),
        (
            ["{cifs}", "--protocol", "cdvae", "--reference", "{cifs}", "--cutoffs", "0.2", "4"],
            "{cifs}: e.cif  cannot be read",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_status_1(
    arguments: list[str], message: str, cifs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    filled = [argument.format(cifs=cifs) for argument in arguments]
    assert main([*filled, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert message.format(cifs=cifs) in error


def test_folder_without_a_cif_is_one_line_before_real_crystals_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("crystens.evaluate.read_reference", None)
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "out"), "--reference", "prototypes"]) == 1
    assert "no CIF file in" in capsys.readouterr().err


def test_reference_with_splits_is_the_train_split(shared_data: Path) -> None:
    reference = read_reference(str(shared_data / "mp_3dsc"))
    assert (reference.split, reference.count) == ("train", 3763)
    with pytest.raises(CrystensError, match="needs its data"):
        read_reference("mp_3dsc")


def _metrics_installed() -> None:
    pytest.importorskip("matminer", reason="the extra metrics is not installed")
    pytest.importorskip("smact", reason="the extra metrics is not installed")


PROTOCOL = ["--protocol", "cdvae", "--cutoffs", "0.2", "4", "--workers", "0"]


@pytest.fixture
def sound(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> Path:
    """A folder with two good crystals."""
    folder = tmp_path / "sound"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": triclinic}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    return folder


def test_the_protocol_adds_columns_metrics_and_a_table_by_size(
    cifs: Path, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _metrics_installed()
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out), "--reference", str(sound), *PROTOCOL]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^num_samples +6 +samples$", printed, re.MULTILINE)
    assert re.search(
        r"^  wasserstein_density: only \d samples are valid, .* 1000 in the protocol: all of them are taken$",
        printed,
        re.MULTILINE,
    )
    metrics = entries(out)
    assert metrics["structural_validity"]["value"] == 2 / 6
    assert metrics["compositional_validity"]["value"] == 2 / 6  # NaCl and CO; not Al3O2 and CsCl2
    assert metrics["validity"]["value"] == 1 / 6
    assert metrics["cov_recall"]["value"] == 1
    assert metrics["cov_precision"]["value"] == 2 / 6
    assert metrics["reference_compositional_validity"]["value"] == 1 / 2
    assert metrics["provenance"]["value"]["protocol"]["reference"]["count"] == 2
    with (out / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["valid"] for row in rows] == ["true"] + ["false"] * 5
    assert (out / "by_num_sites.csv").read_text().startswith("num_sites,samples,structural_validity")
    assert "cov_recall_strict" in (out / "report.html").read_text()


def test_a_folder_of_other_columns_keeps_its_results(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _metrics_installed()
    out = tmp_path / "out"
    assert main([str(sound), "--out", str(out), "--reference", str(sound)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([str(sound), "--out", str(out), "--reference", str(sound), *PROTOCOL]) == 1
    assert "has other columns" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_bounded_reference_is_drawn_by_the_seed_and_said(
    sound: Path, copper_primitive: Crystal, single_atom: Crystal, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _metrics_installed()
    (sound / "c.cif").write_text(write_cif(copper_primitive))
    (sound / "d.cif").write_text(write_cif(single_atom))
    command = [str(sound), "--reference", str(sound), *PROTOCOL, "--reference-number", "2"]
    found = {}
    for seed in "0", "1", "0":
        out = tmp_path / f"out_{seed}_{len(found)}"
        assert main([*command, "--out", str(out), "--seed", seed]) == 0
        metrics = entries(out)
        about = metrics["provenance"]["value"]
        assert about["protocol"]["reference"]["count"] == 2
        assert about["protocol"]["reference"]["name"].endswith(f"(all, 2 of 4 crystals drawn with seed {seed})")
        assert about["reference"]["count"] == 4  # of distributions and formulas
        assert metrics["novel_formula_rate"]["value"] == 0
        assert metrics["cov_recall"]["count"] == 2
        assert metrics["cov_precision"]["value"] < 1
        assert "against 2 of 4 real crystals" in metrics["cov_precision"]["statement"]
        found[out.name] = [metrics[name]["value"] for name in ("cov_precision", "wasserstein_density")]
    assert "cov_precision: against 2 of 4 real crystals" in capsys.readouterr().out
    assert found["out_0_0"] == found["out_0_2"]
    assert main([*command[:-1], "4", "--out", str(tmp_path / "whole")]) == 0
    metrics = entries(tmp_path / "whole")
    assert metrics["cov_precision"]["value"] == 1
    assert "statement" not in metrics["cov_precision"]


def test_the_group_that_a_file_states_is_looked_for_in_its_atoms(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path
) -> None:
    folder, out = tmp_path / "cifs", tmp_path / "out"
    folder.mkdir()
    for name, crystal, stated in (("a", nacl, 225), ("b", nacl, 221), ("c", triclinic, 0), ("d", triclinic, 1)):
        text = write_cif(crystal, extra={GENERATED_GROUP: stated})
        (folder / f"{name}.cif").write_text(text)
    (folder / "e.cif").write_text(write_cif(symmetrised(nacl, 0.01)))
    assert main([str(folder), "--out", str(out)]) == 0
    with (out / "crystals.csv").open(newline="") as file:
        assert [row["generated_space_group"] for row in csv.DictReader(file)] == ["225", "221", "225", "", "1"]
    metrics = entries(out)
    assert metrics["stated_space_group_rate"]["value"] == 2 / 5
    assert metrics["stated_space_group_rate"]["stating"] == 4
    page = (out / "report.html").read_text()
    assert "By number of sites" in page


def test_drawn_crystals_are_some_of_all_in_their_order() -> None:
    whole = list(range(100))
    some = drawn(whole, 10, seed=3)
    assert len(some) == 10
    assert some == sorted(some)
    assert some == drawn(whole, 10, seed=3) != drawn(whole, 10, seed=4)
    assert drawn(whole, None, seed=3) == drawn(whole, 100, seed=3) == drawn(whole, 101, seed=3) == whole


def test_entries_that_are_no_part_of_the_reference_are_told(
    cifs: Path, sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([str(sound), "--out", str(tmp_path / "out"), "--reference", str(cifs)]) == 0
    assert "missing in the reference" in caplog.text


def test_without_the_protocol_nothing_of_it_is_written(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(sound), "--out", str(out), "--reference", str(sound)]) == 0
    assert not {"validity", "cov_recall"} & set(entries(out))
    header = (out / "by_num_sites.csv").read_text().splitlines()[0]
    assert header.startswith("num_sites,samples,structural_validity,p1_rate,")
    assert "valid," not in (out / "crystals.csv").read_text().splitlines()[0].replace("structurally_valid,", "")


def test_every_kind_of_file_gives_the_same_verdict(
    sound: Path, nacl: Crystal, triclinic: Crystal, tmp_path: Path
) -> None:
    _metrics_installed()
    crystals = [nacl, triclinic]
    torch.save(
        {
            "frac_coords": torch.cat([torch.tensor(crystal.coordinates) for crystal in crystals])[None],
            "atom_types": torch.cat([torch.tensor(crystal.numbers) for crystal in crystals])[None],
            "num_atoms": torch.tensor([len(crystal) for crystal in crystals])[None],
            "lengths": torch.stack([torch.tensor(crystal.lengths) for crystal in crystals])[None],
            "angles": torch.stack([torch.tensor(crystal.angles) for crystal in crystals])[None],
        },
        tmp_path / "eval_gen.pt",
    )
    with (tmp_path / "crystals.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("material_id", "cif"), *((name, (sound / f"{name}.cif").read_text()) for name in "ab")]
        )
    write_extended_xyz(tmp_path / "crystals.extxyz", [crystal.to_structure().to_ase_atoms() for crystal in crystals])
    verdicts = {}
    for source in ("sound", "eval_gen.pt", "crystals.csv", "crystals.extxyz"):
        out = tmp_path / f"out_{source}"
        assert main([str(tmp_path / source), "--out", str(out), "--reference", str(sound), *PROTOCOL]) == 0
        metrics = entries(out)
        verdicts[source] = [metrics[name]["value"] for name in ("num_samples", "validity", "cov_recall_strict")]
    assert verdicts == {source: [2, 0.5, 1.0] for source in verdicts}


def test_failed_samples_of_a_folder_of_samples_are_judged_too(sound: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    sound.rename(samples / "cifs")
    lines = [
        "index,file,status,reason",
        "0,cifs/a.cif,ok,",
        "1,,failed,no site",
        "2,cifs/b.cif,ok,",
        "3,,failed,no site",
    ]
    (samples / "crystals.csv").write_text("\n".join([*lines, ""]))
    assert main([str(samples), "--out", str(tmp_path / "out")]) == 0
    metrics = entries(tmp_path / "out")
    assert metrics["num_samples"]["value"] == 4
    assert metrics["structural_validity"]["value"] == 2 / 4
    assert metrics["failures"]["reasons"] == {"not decoded": 2}


def test_a_sample_whose_sites_decoding_merged_is_not_valid_though_its_file_is(sound: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    sound.rename(samples / "cifs")
    table = "index,file,status,reason,merged_sites\n0,cifs/a.cif,ok,,0\n1,,failed,no site,\n2,cifs/b.cif,ok,,1\n"
    (samples / "crystals.csv").write_text(table)
    assert main([str(samples), "--out", str(tmp_path / "out")]) == 0
    metrics = entries(tmp_path / "out")
    assert metrics["structural_validity"]["value"] == 1 / 3
    assert metrics["provenance"]["value"]["invalid_for_merged_sites"] == 1
    assert main([str(samples / "cifs"), "--out", str(tmp_path / "files")]) == 0
    assert entries(tmp_path / "files")["structural_validity"]["value"] == 1


def test_the_protocol_compares_with_the_test_split_by_default(shared_data: Path) -> None:
    real, split = read_real("mp_3dsc", str(shared_data / "mp_3dsc"))
    assert (len(real), split) == (471, "test")
    assert read_real("mp_3dsc", str(shared_data / "mp_3dsc"), "val")[1] == "val"


def test_with_the_protocol_formulas_are_novel_that_the_train_split_lacks(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path
) -> None:
    _metrics_installed()
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "a.cif").write_text(write_cif(nacl))
    data = tmp_path / "data"
    data.mkdir()
    for split, crystal in {"train": nacl, "val": nacl, "test": triclinic}.items():
        table = [["material_id", "cif"], [split, write_cif(crystal)]]
        with (data / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
    out = tmp_path / "out"
    assert main([str(samples), "--out", str(out), "--reference", str(data), *PROTOCOL]) == 0
    metrics = entries(out)
    assert metrics["novel_formula_rate"]["value"] == 0
    assert metrics["cov_precision"]["value"] == 0
