"""The cost of a stage is said once, after its first crystals, and only where it is worth a line."""

from __future__ import annotations

import pytest

from crystens.processes.cost_estimate import CostEstimate


class _Stage:
    """A stage whose crystals take a given time each, after processes took theirs to start."""

    def __init__(self, advice: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.shown: list[tuple[str, int, int | None]] = []
        self.time = 0.0
        self.estimate = CostEstimate(
            lambda *stage: self.shown.append(stage), advice, self.lines.append, lambda: self.time
        )

    def run(self, name: str, known: int, total: int, seconds: float, stop: int) -> None:
        self.estimate(name, known, total)
        self.time += 20.0  # of starting
        for done in range(known + 1, stop + 1):
            self.time += seconds
            self.estimate(name, done, total)


def test_the_price_is_that_of_the_crystals_without_starting_and_is_said_once() -> None:
    stage = _Stage({"its fingerprints": "take fewer"})
    stage.run("its fingerprints", 0, 8342, 0.17, 100)
    assert stage.lines == [
        "its fingerprints of 8,342 crystals: about 24 minutes more, measured on the first 19; take fewer"
    ]
    assert stage.shown == [("its fingerprints", done, 8342) for done in range(101)]


def test_what_is_known_already_costs_nothing() -> None:
    stage = _Stage({"energies": ""})
    stage.run("energies", 5000, 8600, 4.0, 5020)
    (line,) = stage.lines
    assert (
        line == "energies of 8,600 crystals, 5,000 of them known already: about 4.0 hours more, measured on the first 6"
    )


@pytest.mark.parametrize(
    ("name", "total", "seconds"),
    [("its fingerprints", 50, 1.0), ("coverage", 8342, 1.0), ("its fingerprints", 3, 100.0)],
    ids=["cheap", "not of crystals", "over before it is measured"],
)
def test_nothing_is_said_where_nothing_is_worth_it(name: str, total: int, seconds: float) -> None:
    stage = _Stage({"its fingerprints": "take fewer"})
    stage.run(name, 0, total, seconds, min(total, 50))
    assert stage.lines == []
