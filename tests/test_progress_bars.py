"""Progress: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from rich.console import Console

from crystens.processes import progress_bars
from crystens.processes.progress_bars import PlainLines, ProgressBars, shows_bars, spoken


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of() -> tuple[PlainLines, list[str], Clock]:
    """Return plain lines, what they wrote, and their clock; nothing is written behind the test's back."""
    written: list[str] = []
    clock = Clock()
    return PlainLines(written.append, clock), written, clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is written to a standard error that is a terminal."""
    written = io.StringIO()

    def console(stderr: bool) -> Console:
        return Console(file=written, force_terminal=True, color_system=None, width=100, stderr=stderr)

    monkeypatch.setattr(progress_bars, "Console", console)
    return written


def test_nothing_is_shown_before_the_first_stage(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="early"), ProgressBars():
        raise ValueError("early")
    with ProgressBars():
        pass
    assert capsys.readouterr() == ("", "")


def test_short_work_writes_no_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture) -> None:
    with ProgressBars() as bars:
        bars("reading", 0, None)
        bars("judging", 3, 3)
    assert capsys.readouterr() == ("", "")


def test_a_wish_for_colours_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not shows_bars()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert shows_bars()


def test_bars_stand_on_a_terminal_and_unknown_totals_end_with_the_next_bar(terminal: io.StringIO) -> None:
    with ProgressBars() as bars:
        bars("reading", 0, None)
        bars("reading", 5, None, lambda: "2 set aside")
        bars("judging", 2, 3)
        bars("reading", 4, None)
    last = [line for line in terminal.getvalue().split("\n") if "/" in line][-3:]
    for line, parts in zip(
        last, (("reading", "5/5", "2 set aside"), ("judging", "2/3"), ("reading", "4/4")), strict=True
    ):
        assert all(part in line for part in parts)


def test_what_was_interrupted_is_not_shown_as_ended(terminal: io.StringIO) -> None:
    with suppress(KeyboardInterrupt), ProgressBars() as bars:
        bars("reading", 5, None)
        raise KeyboardInterrupt
    assert "5/?" in terminal.getvalue()
    assert "5/5" not in terminal.getvalue()


def test_pauses_between_lines_double_up_to_a_minute_and_each_line_says_what_is_left() -> None:
    lines, written, clock = lines_of()
    times = []
    for second in range(400):
        clock.now = 100.0 + second
        before = len(written)
        lines.show("sampling", second, 400)
        times += [second] * (len(written) - before)
    assert times == [5, 15, 35, 75, 135, 195, 255, 315, 375]
    assert written[0] == "sampling: 5 of 400 (1 %), 5 s, about 6 min 35 s left"
    assert written[3] == "sampling: 75 of 400 (19 %), 1 min 15 s, about 5 min 25 s left"
    clock.now = 500.0
    lines.show("sampling", 400, 400)
    lines.close(failed=False)
    assert written[-1] == "sampling: 400 of 400 in 6 min 40 s"


def test_what_is_left_is_reckoned_from_what_was_done_here() -> None:
    lines, written, clock = lines_of()
    lines.show("sampling", 900, 1000)  # by an earlier call
    clock.now += 10
    lines.show("sampling", 950, 1000)
    lines.close(failed=True)
    assert written == ["sampling: 950 of 1,000 (95 %), 10 s, about 10 s left"]


def test_a_detail_is_asked_for_only_when_a_line_is_written() -> None:
    lines, written, clock = lines_of()
    asked = []
    for second in range(8):
        clock.now = 100.0 + second
        lines.show("reading", 1000 * second, None, lambda: asked.append(1) or "7 set aside")
    lines.close(failed=True)
    assert written == ["reading: 5,000, 5 s so far; 7 set aside"]
    assert len(asked) == 1


def test_a_new_stage_ends_the_one_before_if_that_had_a_line() -> None:
    lines, written, clock = lines_of()
    lines.show("reading", 0, None)
    clock.now += 6
    lines.show("reading", 0, None)
    lines.show("reading", 20, 20)
    lines.show("hull", 0, 2)
    clock.now += 4
    lines.show("judging", 0, 2)
    lines.close(failed=False)
    assert written == ["reading: 6 s so far", "reading: 20 of 20 in 6 s"]


def test_a_stage_that_reports_nothing_has_lines_all_the_same() -> None:
    lines, written, clock = lines_of()
    lines.show("hull", 0, 1)
    clock.now += 9.9
    lines.break_silence()
    assert written == []  # a line is due, and the work may still report and write it
    clock.now += 0.1
    lines.break_silence()
    lines.break_silence()
    lines.close(failed=True)
    assert written == ["hull: 0 of 1 (0 %), 10 s"]


def test_only_the_innermost_of_two_breaks_the_silence() -> None:
    outer, _, _ = lines_of()
    inner, _, _ = lines_of()
    outer.show("judging", 0, 1)
    inner.show("reading", 0, None)
    assert PlainLines._open[-1] is inner
    inner.close(failed=False)
    assert PlainLines._open[-1] is outer
    outer.close(failed=False)
    assert outer not in PlainLines._open


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"), (11100, "3 h 5 min")],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
