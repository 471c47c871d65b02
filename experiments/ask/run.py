"""Do samples meet the conditions that were asked for? See README.md.

python experiments/ask/run.py adherence CHECKPOINT DIR/mp_52 [--number N]
python experiments/ask/run.py csp CHECKPOINT DIR/mp_52 [--number N] [--each K] [--workers W]
python experiments/ask/run.py baseline DIR/mp_52 [--number N] [--each K] [--workers W]
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

import crystens
from crystens.asking.question import Question
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.generator import CHUNK_SIZE, Generator
from crystens.metrics.symmetries import symmetry_of
from crystens.metrics.validity import shortest_distance
from crystens.processes.progress_bars import ProgressBars
from crystens.protocol.csp import csp_metrics, find_matches_of_references
from crystens.protocol.substitution import substituted
from crystens.samples.references import drawn, read_real


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("adherence", "csp", "baseline"):
        command = commands.add_parser(name)
        if name != "baseline":
            command.add_argument("checkpoint")
        command.add_argument("data")
        command.add_argument("--number", type=int, default=500, help="test crystals, drawn by the seed")
        command.add_argument("--each", type=int, default=1, help="samples for each of them")
        command.add_argument("--max-sites", type=int, default=20)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    references = drawn(_crystals(options.data, "test", options.max_sites), options.number, options.seed)
    if options.what == "baseline":
        train = _crystals(options.data, "train", options.max_sites)
        with ProgressBars() as bars:
            samples = substituted(
                train, references, options.each, lambda done: bars("exchanging elements", done, len(references))
            )
        _print_csp(references, samples, options.workers)
        return
    generator = crystens.load(options.checkpoint, device="cpu")
    if options.what == "adherence":
        _adherence(generator, references, options.seed)
        return
    questions = [_question_of(reference) for reference in references]
    _print_csp(references, _answered(generator, questions, options.each, options.seed), options.workers)


def _crystals(data: str, split: str, max_sites: int) -> list[Crystal]:
    """Return the crystals of a split with at most a given number of sites."""
    return [crystal for crystal in read_real("mp_52", data, split)[0] if len(crystal) <= max_sites]


def _question_of(reference: Crystal) -> Question:
    """Return the question for a crystal's formula and number of formula units."""
    amounts = Counter(reference.numbers.tolist())
    z = math.gcd(*amounts.values())
    return Question(tuple(sorted((number, amount // z) for number, amount in amounts.items())), z=z)


def _answered(generator: Generator, questions: Sequence[Question], each: int, seed: int) -> list[list[Crystal | None]]:
    """Return samples of each question; none for a question that the model cannot answer, which is printed."""
    answers: dict[int, Any] = {}
    refused: Counter[str] = Counter()
    for place, question in enumerate(questions):
        try:
            answers[place] = generator.answers([question])[0]
        except CrystensError as error:
            refused[" ".join(str(error).split()[-9:])] += 1
    print(json.dumps({"questions": len(questions), "not answered": dict(refused)}))
    wanted = [answer for answer in answers.values() for _ in range(each)]
    found: list[Crystal | None] = []
    with ProgressBars() as bars:
        for start in range(0, len(wanted), CHUNK_SIZE):
            bars("sampling", start, len(wanted))
            images = generator.sample_chunk(start, min(CHUNK_SIZE, len(wanted) - start), seed, answers=wanted)
            found += [item.crystal for item in generator.decode(images)]
        bars("sampling", len(wanted), len(wanted))
    places = {place: number for number, place in enumerate(answers)}
    return [
        found[places[place] * each : (places[place] + 1) * each] if place in places else [None] * each
        for place in range(len(questions))
    ]


def _print_csp(references: Sequence[Crystal], samples: Sequence[Sequence[Crystal | None]], workers: int) -> None:
    """Print the metrics of structure prediction, of all and by the number of sites."""
    with ProgressBars() as bars:
        matches = find_matches_of_references(
            references, samples, workers, lambda done: bars("comparing", done, len(references))
        )
    for name, entry in csp_metrics(matches).items():
        print(json.dumps({name: entry["value"], "count": entry["count"]}))
    sizes = np.array([len(reference) for reference in references])
    matched = np.isfinite(matches.own).any(axis=1)
    for low, high in ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20)):
        of_size = (sizes >= low) & (sizes <= high)
        if of_size.any():
            print(
                json.dumps(
                    {f"{low} to {high} sites": round(float(matched[of_size].mean()), 4), "count": int(of_size.sum())}
                )
            )


def _adherence(generator: Generator, references: Sequence[Crystal], seed: int) -> None:
    """Print how many samples meet a question: formula, elements or space group of a real crystal."""
    asked: dict[str, list[Question]] = {"formula": [], "chemical_system": [], "space_group": [], "both": []}
    for reference in references:
        group = symmetry_of(reference, shortest_distance(reference)).space_group or 1
        elements = tuple(sorted(set(reference.numbers.tolist())))
        asked["formula"].append(_question_of(reference))
        asked["chemical_system"].append(Question(chemical_system=elements))
        asked["space_group"].append(Question(space_group=group))
        asked["both"].append(Question(chemical_system=elements, space_group=group))
    for name, questions in asked.items():
        samples = [own[0] for own in _answered(generator, questions, 1, seed)]
        met: Counter[str] = Counter()
        for question, crystal in zip(questions, samples, strict=True):
            found = question.met_by(None, None)
            if crystal is not None:
                has = symmetry_of(crystal, shortest_distance(crystal)).space_group
                found = question.met_by(crystal.formula, has)
            met.update({condition: int(true) for condition, true in found.items()})
        decoded = sum(crystal is not None for crystal in samples)
        print(json.dumps({"asked": name, "samples": len(samples), "decoded": decoded, "met": dict(met)}))


if __name__ == "__main__":
    main()
