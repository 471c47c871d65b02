"""The pages of `crystens app`: a form for the question, how far its answer is, and the answer.

The markup is `app.html.j2` in the assets of `crystens.report`; here is what it shows. A page shows no path of this
machine: models have names, and of a path in any text the last part is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crystens.app.answer import Answer, Sample
from crystens.app.asked import MOST_SAMPLES, MOST_SEED, MOST_TEXT, PREFIX, offered
from crystens.app.jobs import DONE, FAILED, RUNNING, STOPPED, WAITING, Job, Jobs
from crystens.checkpoint import without_folders
from crystens.generator import Generator
from crystens.report.templates import render, script
from crystens.report.viewer import space_group_name, viewer_data, viewer_scripts
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS

TITLE = "Ask for crystals"

# Of each condition: an example, and its meaning.
_MEANINGS = {
    "formula": ("SrTiO3", "this composition, in any multiple"),
    "chemical_system": ("Sr-Ti-O", "exactly these elements"),
    "elements": ("Sr, Ti, O", "these elements at most"),
    "space_group": ("221 or Fm-3m", "a number or a symbol"),
    "crystal_system": ("", ""),
    "num_elements": ("3", ""),
    "num_sites": ("8", "in the primitive cell"),
    "z": ("2", "in the primitive cell; with a formula"),
    "charge_neutral": ("true", "charges add up to none"),
}
_LABELS = {"z": "formula units (z)", "num_elements": "number of elements", "num_sites": "number of sites"}
_DEFAULTS = {"num_samples": "8", "seed": "0"}


@dataclass(frozen=True)
class Site:
    """Values that all pages of a server share.

    Attributes:
        models: that can be asked, by their names on the page.
        jobs: questions and answers.
        token: that a form has to bring back, so that no other page can ask.
    """

    models: Mapping[str, Generator]
    jobs: Jobs
    token: str


def question_page(site: Site, form: Mapping[str, str], error: str = "") -> str:
    """Return the page of the form, with what was written into it, and what was wrong with it."""
    return _page(site, form, error=_line(error))


def job_page(site: Site, job: Job) -> str:
    """Return the page of a job: how far it is, or its answer, and the form with its question."""
    asked = job.asked
    form = {"model": asked.model, "num_samples": str(asked.num_samples), "seed": str(asked.seed)}
    form |= {f"{PREFIX}{name}": str(value) for name, value in asked.question.to_dict().items()}
    if job.state == DONE and job.answer is not None:
        return _page(site, form, job=job, answer=job.answer)
    scripts = () if job.ended else (script("app.js"),)
    stopped = "Stopped. Nothing of it is kept." if job.state == STOPPED else ""
    return _page(
        site, form, scripts, job=job, error=_line(job.error), stopped=stopped, progress=progress(site.jobs, job)
    )


def progress(jobs: Jobs, job: Job) -> dict[str, Any]:
    """Return how far a job is, as the script of the page reads it: whether it has ended, in words, done and total."""
    text = job.stage or "starting"
    if job.state == WAITING:
        ahead = jobs.ahead(job)
        text = f"waiting for {ahead} other question{'s' if ahead != 1 else ''}"
    elif job.state == RUNNING and job.stage:
        text = f"{job.stage}: {job.done} of {job.total}"
    return {"ended": job.ended, "text": text, "done": job.done, "total": job.total}


def _page(
    site: Site,
    form: Mapping[str, str],
    scripts: tuple[str, ...] = (),
    job: Job | None = None,
    answer: Answer | None = None,
    error: str = "",
    stopped: str = "",
    progress: Mapping[str, Any] | None = None,
) -> str:
    """Return a page."""
    name = form.get("model", "")
    name = name if name in site.models else next(iter(site.models))
    generator = site.models[name]
    crystals = [] if answer is None else answer.crystals
    drawn = {sample.row["index"]: sample.crystal for sample in crystals if sample.crystal is not None}
    labels = {sample.row["index"]: "\n".join(_lines(sample)) for sample in crystals}
    return render(
        "app.html.j2",
        (*scripts, *(viewer_scripts() if crystals else ())),
        served=True,
        title=TITLE,
        token=site.token,
        names=list(site.models),
        chosen=name,
        about=_about(generator),
        fields=[_field(condition, form) for condition in offered(generator)],
        systems=CRYSTAL_SYSTEMS,
        form=_DEFAULTS | dict(form),
        most={"samples": MOST_SAMPLES, "seed": MOST_SEED, "text": MOST_TEXT},
        error=error,
        stopped=stopped,
        job=None if job is None else job.name,
        asked="" if job is None else str(job.asked),
        progress=None if job is None or job.ended else progress,
        failed=job is not None and job.state == FAILED,
        answer=None if answer is None else _answer(answer),
        data=viewer_data(drawn, labels),
    )


def _about(generator: Generator) -> str:
    """Return what a model is, in two sentences."""
    reference, sites = generator.reference, generator.form.max_sites
    data = str(without_folders(reference.name))
    told = f"{generator.about.get('model', 'A model')}, trained on {data}, {reference.count:,} crystals."
    return told if sites is None else f"{told} It draws crystals of up to {sites} sites in the primitive cell."


def _field(name: str, form: Mapping[str, str]) -> dict[str, Any]:
    """Return the field of a condition."""
    example, meaning = _MEANINGS.get(name, ("", "a number, in the unit of the training data"))
    return {
        "name": f"{PREFIX}{name}",
        "label": _LABELS.get(name, name.replace("_", " ")),
        "example": example,
        "meaning": meaning,
        "value": form.get(f"{PREFIX}{name}", ""),
        "systems": name == "crystal_system",
    }


def _answer(answer: Answer) -> dict[str, Any]:
    """Return what is shown of an answer."""
    rows = [sample.row for sample in answer.samples]
    asked = sorted({name for row in rows for name in row if name.endswith("_met") and row[name] is not None})
    return {
        "sentences": _sentences(answer, asked),
        "crystals": [
            {"index": sample.row["index"], "picture": sample.picture, "lines": _lines(sample)}
            for sample in answer.crystals
        ],
        "rows": [_cells(sample, asked) for sample in answer.crystals],
        "failures": [(row["index"], without_folders(row["reason"])) for row in rows if row["reason"]],
        "asked": bool(asked),
    }


def _sentences(answer: Answer, asked: list[str]) -> list[str]:
    """Return the answer in numbers; failed samples count as invalid, and as not what was asked for."""
    rows, total = [sample.row for sample in answer.samples], len(answer.samples)
    valid = sum(bool(row["structurally_valid"]) for row in rows)
    told = [f"{len(answer.crystals)} of {total} became crystals.", f"Structurally valid: {valid}."]
    if asked:
        told.append(f"As asked: {sum(all(row[name] for name in asked) for row in rows)}.")
    new = sum(row["known_formula"] is False for row in rows)
    return [" ".join(told), f"With a formula that no training crystal of the model has: {new}."]


def _lines(sample: Sample) -> list[str]:
    """Return what stands below the picture of a crystal."""
    row = sample.row
    sites = "1 site" if row["num_sites"] == 1 else f"{row['num_sites']} sites"
    doubts = [] if row["structurally_valid"] else ["structurally invalid"]
    return [row["formula"], _group(row["space_group"]), f"{sites}, sample {row['index']}", *doubts]


def _cells(sample: Sample, asked: list[str]) -> dict[str, Any]:
    """Return the cells of a crystal's row."""
    row = sample.row
    return {
        "index": row["index"],
        "formula": row["formula"],
        "met": "yes" if all(row[name] for name in asked) else "no",
        "cells": {
            "stated space group": _group(row["generated_space_group"]),
            "found": _group(row["space_group"]),
            "sites": str(row["num_sites"]),
            "valid": _truth(row["structurally_valid"]),
            "neutral": _truth(row["charge_neutral"]),
            "known formula": _truth(row["known_formula"]),
            "known template": _truth(row["known_template"]),
        },
    }


def _group(number: int | None) -> str:
    """Return a space group as symbol and number."""
    return "none" if number is None else space_group_name(number)


def _truth(value: bool | None) -> str:
    """Return a truth in a word, or a dash where it is not known."""
    return "–" if value is None else "yes" if value else "no"


def _line(error: str) -> str:
    """Return an error as one line without paths of this machine."""
    return str(without_folders(" ".join(error.split())))
