"""The page of `crystens app` without its server: questions are bounded, answers are those of sample.py, jobs queue."""

from __future__ import annotations

import csv
import importlib.util
import io
import time
import zipfile

import pytest

import crystens
from crystens.app.__main__ import loaded, main
from crystens.app.answer import Answer, Stopped, answer
from crystens.app.asked import MOST_SAMPLES, Asked, offered, read_form
from crystens.app.jobs import DEFECT, MOST_KEPT, MOST_WAITING, Job, Jobs
from crystens.app.page import Site, job_page, question_page
from crystens.asking.question import Question
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.generator import CHUNK_SIZE, Generator
from crystens.report.templates import content_policy
from tests.asked_models import one_crystal
from tests.html_page import cells, parse, scripts, text_of

FORM = {"model": "salt", "num_samples": "3", "seed": "1"}
PATH = "/home/me/secret"


@pytest.fixture
def salt(nacl: Crystal) -> Generator:
    return one_crystal(nacl, first_fails=True)


def nothing(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def site_of(generator: Generator) -> Site:
    models = {"salt": generator}
    return Site(models, Jobs(lambda asked, report: answer(models[asked.model], asked, report)), "token")


def ended(job: Job) -> Job:
    """Wait for the end of a job."""
    for _ in range(6000):
        if job.ended:
            return job
        time.sleep(0.01)
    raise AssertionError(job.state)


def test_a_form_is_read_as_a_question(salt: Generator) -> None:
    form = FORM | {"condition.formula": " NaCl ", "condition.space_group": "Fm-3m", "condition.elements": ""}
    asked = read_form(form, {"salt": salt})
    assert asked == Asked("salt", Question.of(formula="NaCl", space_group=225), 3, 1)
    assert str(asked) == "3 samples of salt, asked for formula NaCl, space_group 225, seed 1"


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("model", "/etc/passwd", "there is no model '/etc/passwd' here; choose one of salt"),
        ("num_samples", str(MOST_SAMPLES + 1), f"must be a whole number from 1 to {MOST_SAMPLES}"),
        ("num_samples", "", "num_samples=nothing must be"),
        ("num_samples", "٣", "must be a whole number"),
        ("seed", "-1", "seed=-1 must be a whole number from 0"),
        ("condition.formula", "H" * 101, "has 101 characters; give at most 100"),
        ("condition.formula", "Xq2", "Xq, which is no element"),
        ("condition.space_group", "231", "must be a whole number from 1 to 230"),
        ("condition.structure", "/etc/passwd", "condition.structure is not known to this model, which can be asked"),
        ("condition.keep", "cell", "condition.keep is not known"),
        ("condition.gap", "3", "condition.gap is not known"),
    ],
)
def test_a_bad_form_is_refused_in_one_line(salt: Generator, field: str, text: str, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        read_form(FORM | {field: text}, {"salt": salt})
    assert "\n" not in str(caught.value)


def test_the_page_offers_no_file_of_the_machine(salt: Generator) -> None:
    assert {"structure", "keep"} & set(offered(salt)) == set()
    assert {"formula", "chemical_system", "elements", "space_group", "crystal_system"} < set(offered(salt))


def test_an_answer_holds_the_crystals_of_sample() -> None:
    generator = crystens.load("perov_5", device="cpu")
    said: list[tuple[str, int, int]] = []
    found = answer(generator, Asked("perov_5", Question(), 2, 7), lambda *told: said.append(told))
    samples = sorted(found.samples, key=lambda sample: sample.row["index"])
    for sample, structure in zip(samples, generator.sample(2, seed=7), strict=True):
        assert sample.crystal is not None
        assert sample.crystal.to_structure() == structure
        assert sample.picture.startswith(b"\x89PNG")
    assert {told[0] for told in said} == {"reading the question", "sampling", "decoding and judging"}
    assert ("sampling", 1, 2) in said


def test_samples_are_judged_and_failed_ones_stay(salt: Generator) -> None:
    found = answer(salt, Asked("salt", Question.of(formula="NaCl"), 3, 1), nothing)
    assert [sample.row["index"] for sample in found.samples] == [1, 2, 0]
    row = found.samples[0].row
    assert (row["formula"], row["space_group"], row["generated_space_group"]) == ("NaCl", 225, 225)
    assert (row["structurally_valid"], row["known_formula"], row["known_template"]) == (True, True, True)
    assert (row["formula_met"], found.samples[2].row["formula_met"]) == (True, False)
    assert found.sample(0) is None
    assert "counts" in salt.model.asked  # the model was asked


def test_all_is_taken_home_in_a_zip(salt: Generator) -> None:
    found = answer(salt, Asked("salt", Question.of(formula="NaCl"), 3, 1), nothing)
    with zipfile.ZipFile(io.BytesIO(found.zipped())) as file:
        assert file.namelist() == ["question.txt", "crystals.csv", "cifs/000001.cif", "cifs/000002.cif"]
        rows = list(csv.DictReader(io.TextIOWrapper(file.open("crystals.csv"), "utf-8")))
        text = file.read("cifs/000001.cif").decode()
    assert [row["file"] for row in rows] == ["cifs/000001.cif", "cifs/000002.cif", ""]
    assert {row["asked"] for row in rows} == {"formula NaCl"}
    assert rows[2]["status"] == "failed"
    assert "Na" in text
    assert "_crystens_generated_space_group_IT_number 225" in text


def test_chunks_are_those_of_sampling(salt: Generator) -> None:
    said: list[tuple[str, int, int]] = []

    def progress(*told: object) -> None:
        said.append(told)
        if told[0] == "decoding and judging":
            raise Stopped

    with pytest.raises(Stopped):
        answer(salt, Asked("salt", Question(), CHUNK_SIZE + 4, 0), progress)
    assert [done for stage, done, _ in said if stage == "sampling"] == [0, 16, 32, 48, 64, 64, 65, 66, 67, 68]


def test_one_question_is_answered_at_a_time_and_few_wait(salt: Generator) -> None:
    site = site_of(salt)
    salt.model.go.clear()
    asked = Asked("salt", Question(), 1, 0)
    first = site.jobs.add(asked)
    while first.state == "waiting":
        time.sleep(0.01)
    waiting = [site.jobs.add(asked) for _ in range(MOST_WAITING)]
    with pytest.raises(CrystensError, match=f"{MOST_WAITING} questions wait for an answer already"):
        site.jobs.add(asked)
    assert [site.jobs.ahead(job) for job in waiting] == [1, 2, 3, 4]
    assert "waiting for 2 other questions" in text_of(parse(job_page(site, waiting[1])))
    site.jobs.stop(waiting[0])
    assert waiting[0].state == "stopped"
    site.jobs.stop(first)
    salt.model.go.set()
    assert ended(first).state == "stopped"
    assert "Stopped. Nothing of it is kept." in text_of(parse(job_page(site, first)))
    assert [ended(job).state for job in waiting[1:]] == ["done"] * 3
    site.jobs.close()


def test_few_answers_are_kept(salt: Generator) -> None:
    jobs = Jobs(lambda asked, report: Answer(asked, ()))
    names = [ended(jobs.add(Asked("salt", Question(), 1, seed))).name for seed in range(MOST_KEPT + 5)]
    assert sum(jobs.find(name) is not None for name in names) == MOST_KEPT
    assert jobs.find(names[-1]) is not None
    jobs.close()


def test_errors_are_one_line_and_defects_stay_on_the_terminal(salt: Generator, caplog) -> None:
    site = site_of(salt)
    job = ended(site.jobs.add(Asked("salt", Question.of(formula="UO2"), 1, 0)))
    assert job.state == "failed"
    assert "occurs in no training crystal of this model" in text_of(parse(job_page(site, job)))
    site.jobs.close()

    def broken(asked: Asked, report: object) -> Answer:
        raise RuntimeError(f"{PATH}/model.ckpt is torn")

    site = Site(site.models, Jobs(broken), "token")
    job = ended(site.jobs.add(Asked("salt", Question(), 1, 0)))
    page = job_page(site, job)
    assert DEFECT in text_of(parse(page))
    assert "RuntimeError" not in page
    assert PATH not in page
    assert "is torn" in caplog.text
    site.jobs.close()


def test_the_page_shows_crystals_groups_and_validity(salt: Generator) -> None:
    site = site_of(salt)
    job = ended(site.jobs.add(Asked("salt", Question.of(formula="NaCl"), 3, 1)))
    text = job_page(site, job)
    page = parse(text)
    assert "2 of 3 became crystals. Structurally valid: 2. As asked: 2." in text_of(page)
    group = "Fm-3m (225)"
    row = ["NaCl, sample 1", "yes", group, group, "8", "yes", "yes", "yes", "yes"]
    assert cells(page, "crystals-table")[0] == row
    assert [figure.get("data-crystal") for figure in page.iter("figure")] == ["1", "2"]
    links = [link.get("href") for link in page.iter("a")]
    assert links == [f"/jobs/{job.name}/{file}" for file in ("crystals.zip", "cifs/1.cif", "cifs/2.cif")]
    fields = {field.get("name"): field.get("value") for field in page.iter("input") if field.get("name")}
    assert (fields["condition.formula"], fields["num_samples"], fields["seed"]) == ("NaCl", "3", "1")
    assert PATH not in text
    site.jobs.close()


def test_pages_load_nothing_from_elsewhere_and_run_no_foreign_script(salt: Generator) -> None:
    site = site_of(salt)
    text = '"><script>alert(1)</script>'
    for page in (
        question_page(
            site, FORM | {"condition.formula": text, "model": text}, f"{text} {PATH}/x.ckpt is no checkpoint"
        ),
        job_page(site, ended(site.jobs.add(Asked("salt", Question(), 2, 1)))),
    ):
        tree = parse(page)
        policy = next(meta.get("content") for meta in tree.iter("meta") if meta.get("http-equiv"))
        run = [script for script in scripts(tree) if "alert(1)" not in script]
        assert policy == content_policy(run, served=True)
        assert "default-src 'none'" in policy
        assert len(run) == len(scripts(tree))
        for element in tree.iter():
            for name in ("src", "href", "action"):
                address = element.get(name, "/")
                assert address.startswith("data:image/png;base64,") or address.startswith("/")
        assert PATH not in page
    site.jobs.close()


def test_models_have_names_without_folders(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("crystens.app.__main__.load", lambda model, device: model)
    for folder in ("one", "two", "three"):
        (tmp_path / folder / "run").mkdir(parents=True)
    names = [str(tmp_path / folder / "run") for folder in ("one", "two", "three")]
    assert list(loaded(["perov_5", *names])) == ["perov_5", "run", "run (2)", "run (3)"]


def test_a_missing_extra_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--no-browser"]) == 1
    said = capsys.readouterr().err
    assert said == 'error: the page needs starlette and uvicorn; run pip install "crystens[app]"\n'
