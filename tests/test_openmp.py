"""How the threads of OpenMP wait, in new processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from crystens.errors import CrystensError
from crystens.training import tasks

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def settings(code: str, **variables: str) -> list[str]:
    """Return the settings of waiting, as libgomp prints them when it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES} | variables
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.replace("[host] ", "").replace("[all] ", "").strip() for line in done.stderr.splitlines()]
    return sorted({line for line in lines if line.startswith(CHOICES)})


@pytest.fixture
def libgomp() -> None:
    """Skip where torch comes with another library, whose settings are printed in another way."""
    if not settings("import torch"):
        pytest.skip("torch has no libgomp here")


def test_threads_spin_little_where_crystens_is_imported_before_torch(libgomp: None) -> None:
    assert "GOMP_SPINCOUNT = '1000'" in settings("import crystens, torch")
    assert "GOMP_SPINCOUNT = '1000'" not in settings("import torch")


@pytest.mark.parametrize(
    "variables", [{"GOMP_SPINCOUNT": "5000"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"KMP_BLOCKTIME": "3"}]
)
def test_a_choice_of_the_user_stands(libgomp: None, variables: dict[str, str]) -> None:
    assert settings("import crystens, torch", **variables) == settings("import torch", **variables)


def test_commands_import_crystens_before_torch(libgomp: None) -> None:
    for command in (
        "crystens.training.command_line",
        "crystens.evaluate",
        "crystens.sun.__main__",
        "crystens.candidates.__main__",
    ):
        assert "GOMP_SPINCOUNT = '1000'" in settings(f"import {command}, torch")


def test_threads_are_what_is_given_then_omp_num_threads_then_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    tasks._set_threads(1)
    assert torch.get_num_threads() == 1
    tasks._set_threads("auto")
    assert torch.get_num_threads() == 3
    for unset in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unset)
        tasks._set_threads("auto")
        assert torch.get_num_threads() == 2
    for wrong in (0, "many", 1.5):
        with pytest.raises(CrystensError, match="threads must be a positive whole number or auto, got"):
            tasks._set_threads(wrong)
