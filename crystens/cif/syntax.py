"""Parsing CIF text into data blocks, tolerant of syntax errors in parts that a crystal does not need.

gemmi parses the text. If it rejects a file, the file is split here into parts (blocks, loops, single items). A broken
part that no crystal needs, such as a loop of authors with a missing value, is left out. A broken part that a crystal
needs (`_NEEDED`) makes its block unusable, and no other block. Blocks with the same name get a number.

Source: Hall, Allen, Brown, Acta Cryst. A 47 (1991) 655; CIF 1.1 syntax, International Tables for Crystallography G
(2005), ch. 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gemmi import cif

from crystens.cif.items import Items, Loop
from crystens.sources.record import Unusable, shown

_NO_CIF = "export the structure as CIF again"
_LONGEST_NAME = 200
# Items that a crystal needs.
_NEEDED = re.compile(
    r"_(?:cell|atom_sites?(?![_.]aniso)|atom_type|space_group|symmetry|magnetic|parent_space_group"
    r"|chemical_formula_sum)(?:[_.]|$)",
    re.IGNORECASE,
)
_NEEDED_IN_TEXT = re.compile(rf"^[ \t]*(?:data_|{_NEEDED.pattern})", re.IGNORECASE | re.MULTILINE)
_TOKEN = re.compile(
    r"""
    (?P<comment> \#[^\n]*+ )
  | (?P<field> ^;(?:[^\n]*+\n(?!;))*+[^\n]*+\n; )
  | (?P<open_field> ^;[\s\S]*+ )
  | (?P<quoted> '(?:[^'\n]|'(?=\S))*+'(?!\S) | "(?:[^"\n]|"(?=\S))*+"(?!\S) )
  | (?P<open_quote> ['"][^\n]*+ )
  | (?P<tag> _\S++ )
  | (?P<header> data_\S*+ )
  | (?P<frame> save_\S*+ )
  | (?P<loop> (?:loop_)(?!\S) )
  | (?P<end> (?:stop_|global_)(?!\S) )
  | (?P<word> \S++ )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A data block.

    Attributes:
        name: short, printable name of the block, followed by a number if an earlier block has the same name.
        items: items of the block, or the reason why they cannot be read.
    """

    name: str
    items: Items | Unusable


def data_blocks(text: str) -> list[Block]:
    """Return the data blocks of a text.

    Args:
        text: text whose lines end with LF.

    Raises:
        Unusable: if the text is no CIF.
    """
    if not text.strip():
        raise Unusable("empty file", "fetch or export the file again")
    found: list[tuple[str, Items | Unusable]]
    try:
        found = [(block.name, Items(block)) for block in cif.read_string(text)]
    except (ValueError, RuntimeError) as error:
        found = _mended(text, str(error))
    times: dict[str, int] = {}
    blocks = []
    for name, items in found:
        name = shown(name, _LONGEST_NAME)
        times[name] = times.get(name, 0) + 1
        blocks.append(Block(name if times[name] == 1 else f"{name} ({times[name]})".strip(), items))
    return blocks


@dataclass(eq=False)
class _Part:
    """A loop or a single item of the text.

    Attributes:
        start: its first character, as an index into the text.
        is_loop: whether it begins with `loop_`.
        tags: its tags.
        values: its values, row by row.
        torn: its first syntax error; empty if there is none.
        at: place of that error, as an index into the text.
        hidden: whether a text field contains items that a crystal needs, as if its end were missing.
    """

    start: int
    is_loop: bool
    tags: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    torn: str = ""
    at: int = 0
    hidden: bool = False

    def tear(self, problem: str, at: int) -> None:
        """Record a syntax error, unless an earlier one is recorded."""
        if not self.torn:
            self.torn, self.at = problem, at

    @property
    def needed(self) -> bool:
        """Whether a crystal needs this part."""
        return self.hidden or any(map(_NEEDED.match, self.tags))


def _mended(text: str, complaint: str) -> list[tuple[str, Items | Unusable]]:
    """Return names and items of the blocks of a text that gemmi rejects."""
    blocks: list[tuple[str, Items | Unusable]] = []
    cut = _cut(text)
    if not cut:
        raise Unusable("not a CIF: no data_ block at its beginning", _NO_CIF)
    for name, parts in cut:
        torn = next((part for part in parts if part.torn and part.needed), None)
        if torn is None:
            whole = (Loop(part.tags, part.values) for part in parts if part.tags and not part.torn)
            blocks.append((name, Items(whole)))
        else:
            blocks.append((name, _refusal(text, torn)))
    return blocks


def _refusal(text: str, part: _Part) -> Unusable:
    """Return the error of a part that cannot be read, with its line."""
    begin = text.rfind("\n", 0, part.at) + 1
    end = text.find("\n", part.at)
    line = shown(text[begin : len(text) if end < 0 else end].strip(), 80)
    where = f"line {text.count(chr(10), 0, part.at) + 1}: {line!r}"
    if part.torn.startswith("loop is truncated"):
        return Unusable(f"{part.torn}; its last is in {where}", "fetch the file again, or complete its last row")
    return Unusable(f"CIF syntax error: {part.torn}, {where}", "correct that line, or export the structure again")


def _cut(text: str) -> list[tuple[str, list[_Part]]]:
    """Return the name and the parts of each data block; empty if other text than comments precedes the first block."""
    blocks: list[tuple[str, list[_Part]]] = []
    parts: list[_Part] = []
    part: _Part | None = None
    in_frame = False
    last = 0  # index of the latest value
    for kind, token, start in _tokens(text):
        if kind == "header":
            _end(part, last)
            parts, part, in_frame = [], None, False
            blocks.append((token[5:], parts))
        elif not blocks:
            return []
        elif kind == "frame":
            _end(part, last)
            part, in_frame = None, len(token) > 5
        elif in_frame:
            continue
        elif kind in ("loop", "end"):
            _end(part, last)
            part = _Part(start, True) if kind == "loop" else None
            parts += [part] if part else []
        elif kind == "tag":
            if part is None or not part.is_loop or part.values:
                _end(part, last)
                part = _Part(start, False)
                parts.append(part)
            part.tags.append(token)
            last = start
        else:
            if part is None:  # a value without a tag
                part = _Part(start, False)
                parts.append(part)
            part.values.append(token)
            last = start
            if not part.is_loop and len(part.values) > len(part.tags):
                part.tear(f"{shown(part.tags[0]) if part.tags else 'no item'} has more than one value", start)
            if kind == "open_quote":
                part.tear("a quote does not end", start)
            elif kind == "open_field":
                part.tear("a text that begins with ; does not end", start)
            if kind in ("field", "open_field") and _NEEDED_IN_TEXT.search(token):
                part.hidden = True
    _end(part, last)
    return blocks


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and place of each token that is no comment."""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup or ""
        if kind != "comment":
            yield kind, found[0], found.start()


def _end(part: _Part | None, last: int) -> None:
    """Record the syntax errors of a complete part; `last` is the index of its latest value or tag."""
    if part is None or part.torn or not part.tags:
        return
    if not part.is_loop:
        if not part.values:
            part.tear(f"{shown(part.tags[0])} has no value", part.start)
    elif len(part.values) % len(part.tags):
        part.tear(
            f"loop is truncated: the {len(part.values)} values of {shown(part.tags[0])} are not a multiple of the "
            f"loop's {len(part.tags)} columns",
            last,
        )
    elif not part.values:
        part.tear(f"the loop of {shown(part.tags[0])} has no values", part.start)
