"""The command crystens: what it dispatches to, its exit statuses, and the wheel that brings it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from crystens.cli import main
from crystens.errors import CrystensError
from crystens.processes.command import run_command

REPOSITORY = Path(__file__).parent.parent
CONSOLE = "import sys; sys.argv[0] = '/bin/crystens'; from crystens.cli import main; sys.exit(main())"


def _build(target: str, folder: Path) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    code = f"from hatchling.build import build_{target} as build; print(build({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return zipfile.ZipFile(folder / done.stdout.strip())


def test_a_wheel_holds_the_configs_the_assets_and_the_command(tmp_path: Path) -> None:
    wheel = _build("wheel", tmp_path)
    names = set(wheel.namelist())
    for folder, place in ((REPOSITORY / "conf", "crystens/conf"), (REPOSITORY / "crystens", "crystens")):
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {f"{place}/{path.relative_to(folder).as_posix()}" for path in files} <= names
    assert {name.split("/")[0] for name in names} == {"crystens", "crystens-0.2.0.dist-info"}
    commands = wheel.read("crystens-0.2.0.dist-info/entry_points.txt").decode()
    assert commands.split() == ["[console_scripts]", "crystens", "=", "crystens.cli:main"]


def test_a_clone_named_crystens_does_not_hide_the_package_from_the_folder_above(tmp_path: Path) -> None:
    _build("editable", tmp_path).extractall(tmp_path / "site")
    assert not (tmp_path / "site" / "crystens").exists()
    (tmp_path / "above" / "crystens").mkdir(parents=True)  # as Python sees the clone: a folder and no package
    code = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import crystens; print(crystens.__file__)"
    command = [sys.executable, "-S", "-c", code]  # -S: without the packages of this environment
    done = subprocess.run(command, cwd=tmp_path / "above", capture_output=True, text=True)
    assert done.stdout.strip() == str(REPOSITORY / "crystens" / "__init__.py"), done.stderr


@pytest.mark.parametrize("name", ["app", "evaluate", "sun", "candidates", "data", "runs", "dashboard"])
def test_a_command_of_options_says_how_it_was_called(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: crystens {name} ")


@pytest.mark.parametrize("name", ["train", "sample"])
def test_a_command_of_keys_says_how_it_was_called_and_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    for argument, status in (("--nothing", 2), ("+formula=SrTiO3", 1)):
        command = [sys.executable, "-c", CONSOLE, name, argument]
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stderr
        if status == 2:
            assert done.stderr.startswith(f"usage: crystens {name} ")
        else:
            assert done.stderr.startswith("error: there is no config key 'formula'")
            assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_command_is_answered_with_all(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "'trian' (choose from 'train', 'sample', 'app', 'evaluate'" in capsys.readouterr().err


def _refuse() -> str:
    raise CrystensError("no such file")


def _interrupt() -> str:
    raise KeyboardInterrupt


def test_exit_statuses_and_lines_are_those_of_all_commands(capsys, monkeypatch) -> None:
    monkeypatch.delenv("CRYSTENS_TRACEBACK", raising=False)
    assert run_command(lambda: "done\n") == 0
    assert run_command(_refuse) == 1
    assert run_command(_interrupt) == 130
    told = capsys.readouterr()
    assert told.out == "done\n"
    assert told.err == "error: no such file\nerror: interrupted; run the same command again to resume\n"


def test_a_traceback_is_shown_where_it_is_asked_for(monkeypatch) -> None:
    monkeypatch.setenv("CRYSTENS_TRACEBACK", "1")
    with pytest.raises(CrystensError, match="no such file"):
        run_command(_refuse)
