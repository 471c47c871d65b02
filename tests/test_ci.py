""".ci/run reads a report of pytest: the tests that were skipped run again, and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = Path(__file__).parent.parent / ".ci" / "skipped.py"
pytestmark = pytest.mark.skipif(not SKIPPED.is_file(), reason="no .ci here: it is not part of the source distribution")

CAPTURED = {"capture_output": True, "text": True, "encoding": "utf-8"}

ODD = ["a b", "[x]", "a::b", "it's", 'say "so"', r"back\slash", "ä", "two\nlines", "$HOME", "x/y.z", ""]
TESTS = f"""
import os
import pytest

def need():
    if "EXTRA" not in os.environ:
        pytest.skip("no extra")

@pytest.mark.parametrize("text", {ODD!r})
def test_odd(text):
    need()

class TestInside:
    def test_method(self):
        need()

def test_passes():
    pass

@pytest.mark.xfail
def test_fails():
    assert False

@pytest.mark.slow
def test_slow():
    need()
"""
MODULE = 'import os, pytest\nif "EXTRA" not in os.environ:\n    pytest.skip("no", allow_module_level=True)\n'
INI = '[pytest]\naddopts = -m "not slow" -p no:cacheprovider\nmarkers = slow\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests have odd names, and need an extra."""
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "tests" / "test_module.py").write_text(f"{MODULE}\ndef test_one(): pass\n")
    return tmp_path


def run(project: Path, command: str, **variables: str) -> str:
    """Run a command of bash in a project and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | variables
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=project, env=environment, **CAPTURED)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_skipped_tests_run_again_whatever_their_names_and_no_others(project: Path) -> None:
    python = f"'{sys.executable}'"
    run(project, f"{python} -m pytest -q --junitxml=report.xml tests")
    again = f"xargs -r -d '\\n' {python} -m pytest -q -rA"
    said = run(project, f"{python} '{SKIPPED}' report.xml | {again}", EXTRA="1")
    passed = [line for line in said.splitlines() if line.startswith("PASSED ")]
    assert f"{len(ODD) + 2} passed" in said
    assert len(passed) == len(ODD) + 2
    assert sum("::test_odd[" in line for line in passed) == len(ODD)
    assert "PASSED tests/test_some.py::TestInside::test_method" in passed
    assert "PASSED tests/test_module.py::test_one" in passed


def test_a_report_without_a_skipped_test_gives_nothing(project: Path) -> None:
    (project / "report.xml").write_text(
        '<testsuite><testcase classname="tests.test_some" name="test_passes"/></testsuite>'
    )
    assert run(project, f"'{sys.executable}' '{SKIPPED}' report.xml") == ""


def test_a_skipped_test_without_a_file_is_an_error(project: Path) -> None:
    case = '<testcase classname="tests.gone" name="test_x"><skipped type="pytest.skip"/></testcase>'
    (project / "report.xml").write_text(f"<testsuite>{case}</testsuite>")
    done = subprocess.run([sys.executable, SKIPPED, "report.xml"], cwd=project, **CAPTURED)
    assert done.returncode == 1
    assert "no file of the skipped test tests.gone test_x" in done.stderr


def test_dft_fails_where_quantum_espresso_cannot_be_had(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 100\n")
    apt.chmod(0o755)
    script = SKIPPED.parent / "dft"
    done = subprocess.run([tmp_path / "bash", script], env={"PATH": str(tmp_path)}, **CAPTURED)
    assert done.returncode == 1
    assert done.stderr == "no pw.x: apt-get install quantum-espresso did not bring it\n"
