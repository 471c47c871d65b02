"""A question as the page asks it: texts of a form, read and bounded before anything is sampled.

The fields of the form are `model`, `num_samples`, `seed` and `condition.NAME` for each condition that the model can be
asked for. A condition that takes the path of a file is not offered: the page reads no file of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from crystens.asking.question import Question
from crystens.errors import CrystensError
from crystens.generator import Generator

MOST_SAMPLES = 100
MOST_TEXT = 100  # characters of one field
MOST_SEED = 2**32 - 1
PREFIX = "condition."

_NOT_OFFERED = ("structure", "keep")


@dataclass(frozen=True)
class Asked:
    """A question to a model.

    Attributes:
        model: its name on the page.
        question: what is asked; nothing may be asked.
        num_samples: 1 to `MOST_SAMPLES`.
        seed: 0 to `MOST_SEED`.
    """

    model: str
    question: Question
    num_samples: int
    seed: int

    def __str__(self) -> str:
        """Return it in words."""
        samples = "1 sample" if self.num_samples == 1 else f"{self.num_samples} samples"
        asked = f", asked for {self.question}" if self.question else ""
        return f"{samples} of {self.model}{asked}, seed {self.seed}"


def offered(generator: Generator) -> tuple[str, ...]:
    """Return the conditions that the page asks a model for."""
    return tuple(name for name in generator.conditions if name not in _NOT_OFFERED)


def read_form(form: Mapping[str, str], models: Mapping[str, Generator]) -> Asked:
    """Return the question of a form; an empty field asks nothing.

    Args:
        form: texts by the names of the fields.
        models: that can be asked, by their names on the page.

    Raises:
        CrystensError: if a text is too long, a number is out of range, there is no such model, or it cannot be asked
            for this.
    """
    for name, text in form.items():
        if len(text) > MOST_TEXT:
            raise CrystensError(f"{name} has {len(text)} characters; give at most {MOST_TEXT}")
    given = {name: text.strip() for name, text in form.items()}
    model = given.get("model", "")
    if model not in models:
        raise CrystensError(f"there is no model {model!r} here; choose one of {', '.join(models)}")
    conditions = {name.removeprefix(PREFIX): text for name, text in given.items() if name.startswith(PREFIX) and text}
    known = offered(models[model])
    for name in conditions:
        if name not in known:
            can = f"can be asked for {', '.join(known)}" if known else "cannot be asked for anything"
            raise CrystensError(f"condition.{name} is not known to this model, which {can}")
    return Asked(
        model,
        Question.of(**conditions),
        _whole(given, "num_samples", 1, MOST_SAMPLES),
        _whole(given, "seed", 0, MOST_SEED),
    )


def _whole(given: Mapping[str, str], name: str, low: int, high: int) -> int:
    """Return a whole number of a form."""
    text = given.get(name, "")
    if not re.fullmatch(r"[0-9]+", text) or not low <= int(text) <= high:
        raise CrystensError(f"{name}={text or 'nothing'} must be a whole number from {low} to {high}")
    return int(text)
