"""README and docs are true: blocks of Python run, command lines fit the program they call, links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crystens.cli import main as crystens_command

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="no docs here: they are not part of the source distribution")

PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LINKED = [*PAGES, *NOTEBOOKS, *(REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
LINKED += sorted((REPOSITORY / "experiments").rglob("*.md"))

# A block, with the comment on the line before it.
_BLOCK = re.compile(r"(?:^<!-- ?([^\n]*?) ?-->\n)?^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([\w-]+))?\)")
# A command line with arguments, within a sentence or a table.
_INLINE = re.compile(r"`(python (?:train\.py|sample\.py|-m crystens[\w.]*) [^`]+)`")
# Programs that are not ours: their arguments are their own.
_OTHERS = ("wandb",)
# Keys of plugins of Hydra that the tests do not need.
_PLUGINS = {"hydra_plugins.hydra_joblib_launcher": re.compile(r"hydra[./]launcher|sweep=|hydra[./]sweeper")}

# Command lines of any page that are right, which need no second look.
_CHECKED: set[tuple[str, ...]] = set()


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its language, its text, and the comment before it."""

    language: str
    text: str
    comment: str

    @property
    def skipped(self) -> bool:
        """Whether the page says why the block is not run."""
        return bool(re.fullmatch(r"not run: \S.*", self.comment))


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    return [Block(found[2], found[3], found[1] or "") for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """Give the words of each command of a block of bash, without variables that are set before it."""
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command += [word] if command or not re.fullmatch(r"[A-Z_]+=.*", word) else []
            elif command:
                yield command
                command = []


def ours(words: list[str]) -> list[str] | None:
    """Return the words after `crystens` that mean this command; None if it is another program."""
    program, *rest = words
    if program == "crystens":
        return rest
    if not re.fullmatch(r"(\.venv/bin/)?python(3\.11)?", program):
        return None
    if rest[:1] in (["train.py"], ["sample.py"]):
        return [rest[0].removesuffix(".py"), *rest[1:]]
    if rest[:1] == ["-m"] and rest[1].startswith("crystens."):
        return [rest[1].removeprefix("crystens."), *rest[2:]]
    return None


def check(words: list[str]) -> None:
    """Fail unless a command line is one that its program takes."""
    command = ours(words)
    if command is not None:
        missing = [pattern for name, pattern in _PLUGINS.items() if not _installed(name)]
        command = [word for word in command if not any(pattern.match(word) for pattern in missing)]
        command = [re.sub(r"^(seed=\d+),.*", r"\1", word) for word in command]  # of a sweep each value is composed
        if tuple(command) in _CHECKED:
            return
        assert not _status(command), shlex.join(words)
        _CHECKED.add(tuple(command))
        return
    program, *rest = words
    if Path(program).name == "pip":
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [extra for word in rest for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*)\]", word)))]
        assert set(named) <= set(extras), words
    elif re.fullmatch(r"(.*/)?python(3\.11)?", program) and rest[0].endswith(".py"):
        assert (REPOSITORY / rest[0]).is_file(), words
    elif re.fullmatch(r"(.*/)?python(3\.11)?", program):
        assert rest[:2] in (["-m", "venv"], ["-m", "pytest"]), words
    else:
        assert program in _OTHERS, f"{program}: check its arguments, or say why not: <!-- not run: REASON -->"


def _status(command: list[str]) -> object:
    """Return the exit status of a command of crystens."""
    try:
        return crystens_command(command)
    except SystemExit as end:
        return end.code


def _installed(name: str) -> bool:
    """Return whether a module can be found."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command parse its arguments, check them and end, in a folder that has a folder DIR."""
    (tmp_path / "DIR").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hydra.main", lambda **_: lambda job: lambda: None)
    for name in ("evaluate", "samples.export", "sun.__main__", "candidates.__main__", "data.__main__", "runs.__main__"):
        monkeypatch.setattr(importlib.import_module(f"crystens.{name}"), "run_command", lambda *_: 0)
    for name in ("app", "dashboard"):
        monkeypatch.setattr(importlib.import_module(f"crystens.{name}.__main__"), "run_command", lambda *_: 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_line_is_one_that_its_program_takes(page: Path, nothing_runs: None) -> None:
    for block in blocks(page):
        if block.language == "bash" and not block.skipped:
            for words in commands(block.text):
                check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_within_a_sentence_are_right_too(page: Path, nothing_runs: None) -> None:
    for line in _INLINE.findall(page.read_text(encoding="utf-8")):
        check(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs_or_the_page_says_why_not(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks(page):
        if block.language == "python":
            code = compile(block.text, page.name, "exec")
            if not block.skipped:
                exec(code, scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_has_a_language(page: Path) -> None:
    assert page.read_text().count("\n```") == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= {"bash", "python", "text"}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_each_link_leads_to_what_exists(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in headings]


def test_each_page_of_the_site_is_in_its_contents() -> None:
    contents = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"(\w+\.md)", contents)) == sorted(
        [f"{page.stem}.md" for page in [*PAGES[1:], *NOTEBOOKS]] + ["CHANGELOG.md", "CONTRIBUTING.md"]
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)


def test_all_extras_stand_on_the_page_that_installs() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (DOCS / "get_started.md").read_text(encoding="utf-8")
    assert [extra for extra in extras if f"`{extra}`" not in page] == []


@pytest.mark.parametrize(
    "line",
    [
        "python train.py modle=edm",
        "python train.py model=emd",
        "python sample.py checkpoint=x decode.atom_cluster=3",
        "python -m crystens.evaluate SOURCE --outt DIR",
        "crystens export SAMPLES --to xml --out FILE",
        'pip install -e ".[no-such-extra]"',
        "python no_such_script.py",
        "rm -rf DIR",
    ],
)
def test_a_wrong_command_line_is_found(line: str, nothing_runs: None) -> None:
    (words,) = commands(line)
    with pytest.raises(AssertionError):
        check(words)
