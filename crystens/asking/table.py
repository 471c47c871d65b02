"""A table of questions, one on each line: CSV with the names of conditions as its first line, or JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystens.asking.question import Question
from crystens.errors import CrystensError


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file, in order.

    Raises:
        CrystensError: if the file cannot be read, or a question is invalid, with its line.
    """
    if not path.is_file():
        raise CrystensError(f"no questions at {path}")
    questions = []
    for line, conditions in _lines(path):
        try:
            question = Question.from_mapping(conditions)
        except CrystensError as error:
            raise CrystensError(f"{path}, line {line}: {error}") from error
        if not question:
            raise CrystensError(f"{path}, line {line} asks for nothing")
        questions.append(question)
    if not questions:
        raise CrystensError(f"{path} holds no questions")
    return questions


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the conditions of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CrystensError(f"{path} is not in UTF-8: {error}") from error
    if path.suffix.lower() == ".csv":
        try:
            yield from _rows(path, text)
        except csv.Error as error:
            raise CrystensError(f"{path} is no CSV: {error}") from error
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
            except json.JSONDecodeError as error:
                raise CrystensError(f"{path}, line {number} is no JSON: {error}") from error
            if not isinstance(told, dict):
                raise CrystensError(f'{path}, line {number} is no JSON object, such as {{"formula": "SrTiO3"}}')
            yield number, told
    else:
        raise CrystensError(f"{path} is neither .csv nor .jsonl")


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the conditions of each line of a CSV file."""
    table = csv.DictReader(text.splitlines(), strict=True)
    head = [name.strip() for name in table.fieldnames or ()]
    if len(head) == 1 and re.search(r"[;\t]", head[0]):
        raise CrystensError(f"{path} must have commas between its columns; its first line is {head[0]!r}")
    if len(set(head)) < len(head):
        raise CrystensError(f"{path} has two columns of one name: {', '.join(head)}")
    table.fieldnames = head
    for row in table:
        if None in row or None in row.values():
            raise CrystensError(f"{path}, line {table.line_num} has another number of columns than the first line")
        yield table.line_num, {name: value.strip() for name, value in row.items() if value.strip()}
