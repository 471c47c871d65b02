"""Results are kept by crystal, at once, and by several processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.processes.result_cache import ResultCache, digest_of


@dataclass(frozen=True)
class Value:
    """A number, or why there is none."""

    number: float | None
    reason: str | None = None

    def to_plain(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Value:
        return cls(**plain)


def _cache(folder: Path, identity: str = "stub 1.0") -> ResultCache[Value]:
    return ResultCache(Value, "values", identity, folder)


def test_the_key_tells_every_change_of_a_crystal_apart(nacl: Crystal) -> None:
    moved = nacl.coordinates.copy()
    moved[0, 0] += 1e-12
    changes = [
        nacl,
        Crystal(nacl.lengths * (1 + 1e-12), nacl.angles, 1, nacl.numbers, nacl.coordinates),
        Crystal(nacl.lengths, nacl.angles + np.array([1e-10, 0, 0]), 1, nacl.numbers, nacl.coordinates),
        Crystal(nacl.lengths, nacl.angles, 1, nacl.numbers[::-1].copy(), nacl.coordinates),
        Crystal(nacl.lengths, nacl.angles, 1, nacl.numbers, moved),
    ]
    digests = [digest_of(crystal) for crystal in changes]
    assert len({*digests, digest_of(nacl, {"steps": 5}), digest_of(nacl, {"steps": 6})}) == len(changes) + 2
    assert digest_of(Crystal(nacl.lengths, nacl.angles, 1, nacl.numbers, nacl.coordinates)) == digests[0]


def test_a_result_is_there_for_the_next_run_and_for_no_other_identity(tmp_path: Path) -> None:
    with _cache(tmp_path) as cache:
        assert cache.get("a", (1.0, 1.0)) is None
        cache.put("a", Value(0.1 + 0.2), (10.0, 4.0))
        with _cache(tmp_path) as other:  # while the first is open: written at once
            assert other.get("a", (99.0, 99.0)) == Value(0.1 + 0.2)
    with _cache(tmp_path, "stub 2.0") as cache:
        assert cache.get("a", (1.0, 1.0)) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stub-1.0.sqlite", "stub-2.0.sqlite"]


def test_a_failure_is_tried_again_with_wider_limits_only(tmp_path: Path) -> None:
    with _cache(tmp_path) as cache:
        cache.put("a", Value(None, "too long"), (10.0, 4.0))
        assert cache.get("a", (10.0, 4.0)) == Value(None, "too long")
        assert cache.get("a", (5.0, 4.0)) == Value(None, "too long")
        assert cache.get("a", (20.0, 4.0)) is None
        assert cache.get("a", (10.0, 8.0)) is None
        cache.put("b", Value(None, "never"), (float("inf"), float("inf")))
        assert cache.get("b", (float("inf"), float("inf"))) == Value(None, "never")


def test_a_file_that_is_no_cache_is_said(tmp_path: Path) -> None:
    with _cache(tmp_path) as cache:
        path = cache.path
    path.write_bytes(b"x" * 5000)
    with pytest.raises(CrystensError, match="file is not a database; remove it"):
        _cache(tmp_path)


def test_a_result_that_cannot_be_written_is_said_once_and_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _cache(tmp_path) as cache:
        sqlite3.connect(cache.path).execute("DROP TABLE results")
        cache.put("a", Value(1.0), (1.0, 1.0))
        cache.put("b", Value(1.0), (1.0, 1.0))
    assert caplog.text.count("will compute the results again") == 1


def _fill(folder: Path, start: int) -> None:
    with _cache(folder) as cache:
        for number in range(start, start + 200):
            cache.put(str(number), Value(float(number)), (1.0, 1.0))


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with _cache(tmp_path) as cache:
        assert [cache.get(str(number), (1.0, 1.0)) for number in range(400)] == [Value(float(n)) for n in range(400)]
