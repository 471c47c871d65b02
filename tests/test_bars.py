"""Progress bars of the commands."""

from contextlib import suppress

import pytest

from crystens.bars import Bars


def test_nothing_is_shown_before_the_first_bar(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="early"), Bars():
        raise ValueError("early")
    with Bars():
        pass
    assert capsys.readouterr() == ("", "")


def test_bars_stand_on_standard_error_and_unknown_totals_end_with_the_next_bar(capsys: pytest.CaptureFixture) -> None:
    with Bars() as bars:
        bars("reading", 0, None)
        bars("reading", 5, None)
        bars("judging", 2, 3)
        bars("reading", 4, None)
    out, err = capsys.readouterr()
    assert out == ""
    assert [(line.split()[0], line.split()[-2]) for line in err.splitlines()] == [
        ("reading", "5/5"),
        ("judging", "2/3"),
        ("reading", "4/4"),
    ]


def test_what_was_interrupted_is_not_shown_as_ended(capsys: pytest.CaptureFixture) -> None:
    with suppress(KeyboardInterrupt), Bars() as bars:
        bars("reading", 5, None)
        raise KeyboardInterrupt
    assert "5/?" in capsys.readouterr().err
