"""Pages are whole, escaped and closed to what is not theirs; a package without its templates says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_page import assert_self_contained, parse, scripts
from jinja2 import Environment, FileSystemLoader

from crystens.errors import CrystensError
from crystens.report import templates
from crystens.report.templates import content_policy, render


@pytest.fixture
def own_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(templates, "_ASSETS", tmp_path)
    environment = Environment(loader=FileSystemLoader(tmp_path), autoescape=True)
    environment.filters |= templates._ENVIRONMENT.filters
    monkeypatch.setattr(templates, "_ENVIRONMENT", environment)
    return tmp_path


def test_a_script_runs_as_it_is_written_and_no_other_does() -> None:
    code = "if (1 < 2 && '</x>') document.title = \"&amp;\";"
    page = parse(render("page.html.j2", [code], title="a"))
    assert scripts(page) == [code]
    assert_self_contained(page)
    assert "script-src 'none'" in content_policy([])


def test_a_script_cannot_end_its_element(own_templates: Path) -> None:
    (own_templates / "own.js").write_text("const a = '</script><!-- </SCRIPT>';")
    assert templates.script("own.js") == "const a = '<\\/script><\\!-- <\\/SCRIPT>';"


def test_names_may_break_at_dots_and_underscores_and_are_escaped(own_templates: Path) -> None:
    (own_templates / "a.html.j2").write_text("{{ name | breakable }}")
    assert render("a.html.j2", name="a.<b>_c") == "a.<wbr>&lt;b&gt;_<wbr>c"


def test_a_package_without_its_files_says_to_install_it_again(own_templates: Path) -> None:
    (own_templates / "a.html.j2").write_text("{% include 'style.css' %}")
    with pytest.raises(CrystensError, match=r"style\.css is not there: install the package again"):
        render("a.html.j2")
    with pytest.raises(CrystensError, match=r"viewer\.js is not there: install the package again"):
        templates.script("viewer.js")
