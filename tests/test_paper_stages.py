import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "experiments" / "paper"


@pytest.fixture(scope="module")
def stages():
    spec = importlib.util.spec_from_file_location("stages", FOLDER / "stages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["stages"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["stages"]


def _copying(stages, folder: Path, name: str = "copy"):
    """A stage that appends what `input` holds to `output`, twice."""
    code = "import sys; open(sys.argv[2], 'a').write(open(sys.argv[1]).read())"
    command = [sys.executable, "-c", code, str(folder / "input"), str(folder / "made" / "output")]
    return stages.Stage(name, [command, command], [folder / "input"], folder / "made", ["output"])


def test_a_stage_is_run_once_and_again_when_its_input_changes(stages, tmp_path):
    (tmp_path / "input").write_text("a")
    stage = _copying(stages, tmp_path)
    statuses = [stages.run_stages([stage], tmp_path / "records", tmp_path)[0]["status"] for _ in range(2)]
    assert statuses == ["ran", "kept"]
    assert (tmp_path / "made" / "output").read_text() == "aa"
    (tmp_path / "input").write_text("b")
    assert stages.run_stages([stage], tmp_path / "records", tmp_path)[0]["status"] == "ran"
    assert (tmp_path / "made" / "output").read_text() == "bb"


def test_a_stage_whose_output_is_gone_is_run_again(stages, tmp_path):
    (tmp_path / "input").write_text("a")
    stage = _copying(stages, tmp_path)
    stages.run_stages([stage], tmp_path / "records", tmp_path)
    (tmp_path / "made" / "output").unlink()
    assert stages.run_stages([stage], tmp_path / "records", tmp_path)[0]["status"] == "ran"


def test_a_failed_stage_is_told_and_tried_again_and_the_next_ones_are_run(stages, tmp_path):
    (tmp_path / "input").write_text("a")
    bad = stages.Stage("bad", [[sys.executable, "-c", "raise SystemExit(3)"]], [], tmp_path / "bad", [])
    for _ in range(2):
        records = stages.run_stages([bad, _copying(stages, tmp_path)], tmp_path / "records", tmp_path)
        assert records[0]["status"] == "failed"
    assert records[1]["status"] == "kept"


def test_a_stage_that_does_not_write_its_output_has_failed(stages, tmp_path):
    silent = stages.Stage("silent", [[sys.executable, "-c", ""]], [], tmp_path / "silent", ["never"])
    assert stages.run_stages([silent], tmp_path / "records", tmp_path)[0]["status"] == "failed"


def test_times_of_a_kept_stage_are_those_of_its_run(stages, tmp_path):
    (tmp_path / "input").write_text("a")
    stage = _copying(stages, tmp_path)
    (ran,) = stages.run_stages([stage], tmp_path / "records", tmp_path)
    (kept,) = stages.run_stages([stage], tmp_path / "records", tmp_path)
    assert kept["seconds"] == ran["seconds"]
