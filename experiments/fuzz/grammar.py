"""A grammar of nearly valid inputs in each format, with wrong numbers, words and sizes.

An input of a format depends on the random generator, and on the real files that it may change.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import itertools
import json
import math
import re
import sqlite3
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import ase.db
import gemmi
import numpy as np
from ase import Atoms

_DIGITS = re.compile(rb"[+-]?\d[\w.+-]*")
_HOSTILE_NUMBERS = (
    *("0", "-0", "1", "1e308", "-1e308", "1e-320", "5e-324", "nan", "inf", "-inf", "1e999", "1e300", "1e16", "180"),
    *("1/3", "0.33333", "5.64(2)", "5.64(", "1,5", "\u0663", "\u00b2", "'\u00b2'", "0x10", "1_0", "1e", "--1", "?"),
    *(".", "1d0", "true", "null", "''", "0.0001", "179.9999", "-3", "1000000000000000000", "9" * 400, "1" * 5000),
)
_HOSTILE_WORDS = (
    *("", " ", "\n", "\t", "\0", "\x1b[31m", "\u2028", "\ufeff", "\ud800", "\u00e9", "?", ".", "'", '"', ";", "\n;\n"),
    *("x" * 3000, "a\nb", "[", "{", "}", ":", ": ", "data_", "loop_", "save_", "#", "nan", "-1", "1e400"),
)
_SYMBOLS = (
    "H",
    "C",
    "O",
    "Na",
    "Cl",
    "Fe",
    "Cs",
    "U",
    "Og",
    "D",
    "T",
    "Fe3+",
    "O2-",
    "Xx",
    "X",
    "Wat",
    "0",
    "119",
    "?",
)
_TRIPLETS = (
    *("x,y,z", "-x,-y,-z", "x+1/2,y+1/2,z", "-y,x-y,z", "y,z,x", "x,-y,z+1/2", "1/4+x,y,z", "x+.25,y,z", "2*x,y/2,z"),
    *("x,y", "x,x,z", "x+1/0,y,z", "x+1/7,y,z", "x+0.001,y,z", "x+1,y,z", "1000*x+y,z,x", "x+1e3,y,z", ",,", "x,y,z,x"),
    *(f"x+{'9' * 400},y,z", f"x+1/{'1' * 5000},y,z", f"x{'+x-x' * 500},y,z", "x, 99999999999999999999*x+y, z"),
)
_GROUP_SYMBOLS = (
    *("OH", "NH4+", "CO3", "'Nb,Zr'", "Al0.5Si0.5", "CO", "H2O", "FE+3", "'Fe3+,spin=5'", "?", ".", "Fe2", "T1", "cL"),
)
_CODES = ("1", "2", "h", "r", "b1", "-c2", "1cab", "abc", "", "9", "\u00b2", "x" * 300)
_SCHOENFLIES = ("Oh^7", "D6h.4", "C2h", "C1", "\u00d6h^5", "Oh^" + "9" * 50)
_FORMULAE = (
    "'Na Cl'",
    "NaCl",
    "'Na1.98 Cl2'",
    "?",
    "'H2 O'",
    "'Cs Cl'",
    "CO",
    "'Fe3 O4'",
    "'Na n'",
    "'1'",
    "'Na9e9 Cl'",
    "9",
)
_HALLS = (
    "P 1",
    "-P 2ybc",
    "-F 4 2 3",
    "P 3*",
    '-R 3 2"',
    "P 4w 2c",
    "P 1 (x+1/5,y,z)",
    "P 4 (2x,y,z)",
    "I",
    "-",
    "P 6 6 6 6",
)


def number(rng: Random, low: float, high: float, hostility: float = 0.004) -> str:
    """Return a number between two bounds as text, or sometimes another text."""
    if rng.random() < hostility:
        return rng.choice(_HOSTILE_NUMBERS)
    value = rng.uniform(low, high)
    return rng.choice([f"{value:.4f}", f"{value:.4f}", f"{value:.0f}", f"{value:e}", repr(value)])


def word(rng: Random, usual: str, hostility: float = 0.006) -> str:
    """Return a word, or sometimes a wrong one."""
    return rng.choice(_HOSTILE_WORDS) if rng.random() < hostility else usual


def fraction(rng: Random) -> str:
    """Return a fractional coordinate as text."""
    if rng.random() < 0.3:
        return rng.choice(["0", "0.5", "0.25", "0.3333", "0.66667", "-0.5", "1.0", "0.999999999"])
    return number(rng, -2, 2)


def cell_values(rng: Random) -> list[str]:
    """Return three lengths, angstrom, and three angles, degrees, as text."""
    lengths = [number(rng, 2.5, 12) for _ in range(3)]
    if rng.random() < 0.5:
        lengths = [lengths[0]] * 3
    kinds: list[Callable[[], list[str]]] = [
        lambda: ["90"] * 3,
        lambda: ["60"] * 3,
        lambda: ["90", "90", "120"],
        lambda: [number(rng, 60, 120) for _ in range(3)],
        lambda: [number(rng, 0, 180) for _ in range(3)],
        lambda: ["119.999"] * 3,
        lambda: ["0.0001"] * 3,
        lambda: ["90", "90", number(rng, 0, 3)],
    ]
    angles = rng.choices(kinds, weights=[6, 2, 3, 4, 2, 0.3, 0.3, 0.5])[0]()
    return lengths + angles


def count(rng: Random) -> int:
    """Return a number of sites, mostly small."""
    return rng.choices([rng.randrange(1, 9), 0, rng.randrange(9, 80), rng.randrange(80, 2000)], [90, 3, 6, 1])[0]


def a_cif(rng: Random) -> bytes:
    """Return a nearly valid CIF."""
    alike = rng.random() < 0.3
    blocks = [_block(rng, "b" if alike else f"b{k}") for k in range(rng.choices([1, 2, 5, 200], [85, 12, 2, 0.3])[0])]
    text = "".join(blocks)
    if rng.random() < 0.06:
        text = text.replace("\n", rng.choice(["\r", "\r\n", "\n\f", "\x1a\n", "\v", "\u00a0\n"]))
    return text.encode("utf-8", errors="surrogatepass")


def _block(rng: Random, name: str) -> str:
    """Return one data block."""
    new = rng.random() < 0.2
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = "".join(
        f"_cell{'.' if new else '_'}{name} {_quoted(rng, value)}\n"
        for name, value in zip(names, cell_values(rng), strict=True)
        if rng.random() > 0.01
    )
    parts = [cell, _atom_loop(rng, new), _symmetry(rng)]
    rng.shuffle(parts)
    extra = [
        "",
        "_note\n;\nfree text\n;\n",
        "# comment\n",
        "save_frame\n_x 1\nsave_\n",
        "loop_\n_a\n_b\n1 2 3\n",
        cell,
        "global_\n",
        "loop_\n_atom_site_label\nC1\n",
        "_atom_site_occupancy 0.5\n",
        f"_chemical_formula_sum {rng.choice(_FORMULAE)}\n_cell_formula_units_Z {number(rng, 1, 9, 0.2)}\n",
        "loop_\n_publ_author_name\n_publ_author_address\n'A.' 'B'\n'C.'\n",
        "_journal_name Acta Cryst\n",
        "_journal_name 'Acta\n",
        "_journal_year\n",
        "_text\n;\nnever ends\n",
        f"_cell_modulation_dimension {number(rng, 0, 2, 0.3)}\n",
    ]
    parts.insert(rng.randrange(3), rng.choices(extra, [50, 5, 5, 2, 1, 1, 1, 1, 1, 15, 2, 2, 2, 2, 1, 0.5])[0])
    return f"data_{word(rng, name, 0.01)}\n" + "".join(parts)


def _atom_loop(rng: Random, new: bool) -> str:
    """Return the loop of the atoms."""
    dot = "." if new else "_"
    columns: dict[str, Callable[[], str]] = {"type_symbol": lambda: word(rng, rng.choice(_SYMBOLS[:10]))}
    if rng.random() < 0.3:
        columns["label"] = lambda: word(rng, f"{rng.choice(_SYMBOLS)}{rng.randrange(99)}")
    columns |= {f"fract_{axis}": lambda: fraction(rng) for axis in "xyz"}
    if rng.random() < 0.3:
        columns["occupancy"] = lambda: rng.choice(["1", "1.0", ".", "1(0)", number(rng, 0, 1.2)])
    if rng.random() < 0.1:
        columns["type_symbol"] = lambda: rng.choice([*_GROUP_SYMBOLS, *_SYMBOLS[:6]])
    if rng.random() < 0.1:
        columns["disorder_group"] = lambda: rng.choice([".", ".", "1", "2", "-1", "0"])
        columns["disorder_assembly"] = lambda: rng.choice([".", "A", "B"])
    if rng.random() < 0.1:
        columns["attached_hydrogens"] = lambda: rng.choice(["0", "0", ".", number(rng, 0, 4)])
    if rng.random() < 0.1:
        columns["calc_flag"] = lambda: rng.choice(["d", "dum", "calc"])
    if rng.random() < 0.05:
        columns["symmetry_multiplicity"] = lambda: number(rng, 1, 48)
    if rng.random() < 0.05:
        columns.pop(rng.choice(list(columns)))
    order = list(columns)
    rng.shuffle(order)
    tags = "".join(f"_atom_site{dot}{column}\n" for column in order)
    rows = "".join(" ".join(_quoted(rng, columns[column]()) for column in order) + "\n" for _ in range(count(rng)))
    return f"loop_\n{tags}{rows}"


def _symmetry(rng: Random) -> str:
    """Return the symmetry of a block, in one or several ways."""
    group = gemmi.find_spacegroup_by_number(rng.randrange(1, 231))
    known = [operation.triplet() for operation in group.operations()]
    lists = [known, rng.choices(_TRIPLETS, k=rng.randrange(1, 5)), rng.sample(known, rng.randrange(1, len(known) + 1))]
    if rng.random() < 0.02:
        lists = [[f"x+{k}{rng.choice(['', '/1000', '/97'])},y,z" for k in range(rng.choice([100, 1900, 2100]))]]
    if rng.random() < 0.2:
        lists.append([*known, rng.choice(_TRIPLETS)])
    tag = rng.choice(
        ["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz"]
    )
    listed = f"loop_\n{tag}\n" + "".join(f"'{word(rng, t, 0.005)}'\n" for t in rng.choice(lists))
    named = [
        f"_symmetry_space_group_name_H-M '{word(rng, group.hm, 0.1)}'\n",
        f"_space_group_name_H-M_alt '{word(rng, group.xhm(), 0.1)}'\n",
        f"_space_group_IT_number {number(rng, 1, 230, 1) if rng.random() < 0.2 else group.number}\n",
        f"_space_group_name_Hall '{rng.choice([group.hall, rng.choice(_HALLS), word(rng, group.hall, 1)])}'\n",
    ]
    code = rng.choice([group.ext.strip("\0") + group.qualifier, *_CODES]) or "."
    named += [
        f"_space_group_IT_coordinate_system_code {code}\n",
        f"_space_group_name_Schoenflies '{rng.choice(_SCHOENFLIES)}'\n",
        f"_space_group_name_H-M_full '{word(rng, group.hm, 0.3)}'\n",
        "_space_group_magn.number_BNS 15.90\n",
    ]
    magnetic = "loop_\n_space_group_symop_magn_operation.xyz\n" + "".join(
        f"{t.replace(' ', '')},{rng.choice(['+1', '-1', ''])}\n" for t in rng.choice(lists) if "'" not in t
    )
    magnetic += "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx+1/2,y,z+1/2,-1\n" * (rng.random() < 0.5)
    generators = listed.replace(tag, "_space_group_symop_generator_xyz")
    several = "".join(rng.sample(named, rng.randrange(2, 4)))
    ways = ["", listed, rng.choice(named), listed + "".join(rng.sample(named, 2)), several, magnetic, generators]
    return rng.choices(ways, [3, 4, 3, 2, 2, 0.5, 0.5])[0]


def _quoted(rng: Random, text: str) -> str:
    """Return a CIF value: quoted if needed, and sometimes quoted without need, or with an uncertainty."""
    if "." in text and text[-1].isdigit() and rng.random() < 0.1:
        text += f"({rng.randrange(1, 99)})"
    if text == "" or any(c in text for c in " \t#'\"") or rng.random() < 0.02:
        return rng.choice([f"'{text}'", f'"{text}"', f"\n;{text}\n;\n"])
    return text


def a_table(rng: Random) -> bytes:
    """Return a CSV table of CIFs."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    headers = [
        ["", "material_id", "cif"],
        ["cif"],
        ["cif", "cif", "material_id"],
        ["id"],
        ["immutable_id", "structure"],
    ]
    header = rng.choices([*headers, ["cif_string", "structure"]], [20, 5, 1, 0.3, 8, 4])[0]
    writer.writerow(header)
    for k in range(rng.randrange(4)):
        cif = a_cif(rng).decode("utf-8", errors="surrogatepass")
        crystal = {"cif": cif, "cif_string": rng.choice([cif, ""]), "structure": _json_text(rng, _structure(rng))}
        row = [crystal[name] if name in crystal else word(rng, f"mp-{k}") for name in header]
        writer.writerow(row[: rng.choice([None, None, None, 1, 0])] + ["more"] * (rng.random() < 0.05))
    return text.getvalue().encode("utf-8", errors="surrogatepass")


def _json_number(rng: Random, low: float, high: float) -> Any:
    """Return a JSON value, mostly a number."""
    if rng.random() > 0.004:
        return round(rng.uniform(low, high), 4)
    return rng.choice(
        [0, -1, 1e308, 1e-320, math.nan, math.inf, 10**400, "@long@", True, None, "5.1", "x", [], {}, [[1]], "\ud800"]
    )


def _json_cell(rng: Random) -> tuple[list[Any], list[Any]]:
    """Return lengths and angles as JSON values."""
    lengths = [_json_number(rng, 2.5, 12) for _ in range(rng.choices([3, 2, 0], [50, 1, 1])[0])]
    angles = [rng.choice([90, 90, 60, 120, _json_number(rng, 30, 150)]) for _ in range(3)]
    return lengths, angles


def _json_matrix(rng: Random) -> Any:
    """Return cell vectors as JSON values."""
    matrix = [[0.0] * 3 for _ in range(3)]
    for row, column in itertools.product(range(3), repeat=2):
        matrix[row][column] = _json_number(rng, 3, 8) if row == column else rng.choice([0, 0, _json_number(rng, -2, 2)])
    return rng.choices([matrix, None, matrix[:2], [matrix], "matrix"], [60, 1, 1, 1, 1])[0]


def _json_element(rng: Random) -> Any:
    """Return an element, or sometimes a wrong value."""
    if rng.random() > 0.006:
        return rng.choice([rng.choice(_SYMBOLS[:10]), rng.randrange(1, 119)])
    odd: list[Any] = [True, 0, -1, 119, 11.0, 11.5, 1e400, math.nan, None, []]
    odd += [{"a": 1}, _deep(rng), "X" * 3000, "a\nb", "\ud800"]
    return rng.choice(odd)


def _deep(rng: Random) -> str:
    """Return a mark for a deeply nested list, near the limits of parsing, printing and NumPy arrays."""
    return f"@deep {rng.choice([30, 63, 70, 900, 920, 940, 960, 980])}@"


def _json_place(rng: Random) -> Any:
    """Return three coordinates as JSON values."""
    place = [rng.choice([0, 0.5, _json_number(rng, -1, 2), _json_number(rng, 0, 1)]) for _ in range(3)]
    if rng.random() > 0.003:
        return place
    odd: list[Any] = [place[:2], [place], [], _deep(rng), None]
    return rng.choice(odd)


def _json_text(rng: Random, value: Any) -> str:
    """Return a value as JSON, with nesting and integers that `json.dumps` cannot write."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).replace('"@long@"', "1" * 5000)
    return re.sub(r'"@deep (\d+)@"', lambda mark: "[" * int(mark[1]) + "1" + "]" * int(mark[1]), text)


def a_dictionary(rng: Random) -> bytes:
    """Return a crystal dictionary."""
    return "\n".join(_json_text(rng, _dictionary_line(rng)) for _ in range(rng.randrange(1, 4))).encode(
        "utf-8", errors="surrogatepass"
    )


def _dictionary_line(rng: Random) -> Any:
    """Return one line of a crystal dictionary."""
    lengths, angles = _json_cell(rng)
    size = count(rng)
    elements = [_json_element(rng) for _ in range(size)]
    places = [_json_place(rng) for _ in range(size)]
    cell: dict[str, Any] = rng.choice(
        [
            {"lengths": lengths, "angles": angles},
            {"cell": lengths + angles},
            {"Lattice": {"cell lengths": lengths, "cell_angles": angles}},
            dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), lengths + angles, strict=False)),
        ]
    )
    sites: dict[str, Any] = rng.choice(
        [
            {"elements": elements, "coordinates": places},
            {"sites": [[e, *(p or [])] for e, p in zip(elements, places, strict=True)]},
            {"species": elements, **{axis: [_json_number(rng, 0, 1) for _ in elements] for axis in "xyz"}},
        ]
    )
    name: dict[str, Any] = rng.choice(
        [{}, {"id": word(rng, "a", 0.2)}, {"id": rng.choice([1, None, [1], True, [[1]] * 1000])}]
    )
    return {**name, **cell, **sites} if rng.random() > 0.02 else rng.choice([_deep(rng), [], None, 1, "x", [cell]])


def an_xyz(rng: Random) -> bytes:
    """Return extended XYZ frames, in ASE's notation or in any of the specification; some are damaged."""
    frames = []
    for _ in range(rng.choices([1, 2, 4], [8, 2, 1])[0]):
        size = count(rng)
        said = (
            str(size)
            if rng.random() > 0.05
            else rng.choice(
                ["-1", "1000000000000000000", "0", "1.0", "", "\u0663", "007", str(size + 1), str(size // 2)]
            )
        )
        columns = _xyz_columns(rng)
        properties = ":".join(f"{name}:{kind}:{width}" for name, kind, width in columns)
        pairs = [_xyz_lattice(rng), _xyz_pair(rng, "Properties", properties)] if columns else [_xyz_lattice(rng)]
        flags = ['"T T T"', "[T, True, TRUE]", "{T T T}", "T", '"[1, 1, 1]"', f'"{"T " * 3000}"', '"T F"', "yes"]
        pairs.append(rng.choices(["", f"pbc={rng.choices(flags, [9, 5, 5, 5, 5, 1, 1, 1])[0]}"], [3, 7])[0])
        pairs += [f"id={word(rng, 'a', 0.3)}", rng.choice(["", 'occupancy="{}"', "occupancy=_JSON[1]", 'a="b\\"'])]
        odd = [
            "flag",
            "a::Lattice=[1]",
            '"x y" = "\\\\ \\n"',
            "[" * 99,
            "{" * 9 + "}" * 9,
            "'a'=\"",
            "==",
            "m=[[1,2],[3]]",
        ]
        pairs += rng.choices(odd, k=rng.choices([0, 1, 3], [6, 3, 1])[0])
        rng.shuffle(pairs)
        rows = [_xyz_row(rng, columns or [("species", "S", 1), ("pos", "R", 3)]) for _ in range(size)]
        lines = [said, " ".join(pairs), *rows]
        if rng.random() < 0.15:
            place = rng.randrange(len(lines))
            torn = [[], ["", " "], [lines[place][: len(lines[place]) // 2]], [lines[place], rng.choice(lines)], ["17"]]
            lines[place : place + 1] = rng.choice(torn)
        frames.append("\n".join(lines) + rng.choices(["\n", "\n\n \n", ""], [20, 3, 1])[0])
    return "".join(frames).encode("utf-8", errors="surrogatepass")


def _xyz_lattice(rng: Random) -> str:
    """Return the pair of the cell vectors."""
    values = [number(rng, 3, 8) if k % 4 == 0 else rng.choice(["0", "0", number(rng, -2, 2)]) for k in range(9)]
    values = [_fortran(rng, value) for value in values]
    rows = [", ".join(values[k : k + 3]) for k in (0, 3, 6)]
    ways = [
        f'"{" ".join(values)}"',
        f"[{', '.join(values)}]",
        f"{{{' '.join(values)}}}",
        "[" + ", ".join(f"[{row}]" for row in rows) + "]",
        f'"{" ".join(values[::4])}"',
        f'"[[{"], [".join(rows)}]]"',
        f"[[{values[0]}, {rows[1]}], [{rows[2]}]]",
        ",".join(values),
    ]
    return _xyz_pair(
        rng, rng.choice(["Lattice", "Lattice", "lattice"]), rng.choices(ways, [20, 5, 5, 8, 3, 1, 1, 1])[0]
    )


def _xyz_pair(rng: Random, key: str, value: str) -> str:
    """Return a pair of the comment line, sometimes with blanks, quotes, or a missing part."""
    if rng.random() < 0.03:
        return rng.choice(
            ["", key, f"{key}=", f"{key}={value[:-1]}", f"{key}={word(rng, value, 1)}", f"{key}={value} " * 2]
        )
    return rng.choices([f"{key}={value}", f'"{key}" = {value}', f"{key} ={value}"], [20, 1, 1])[0]


def _xyz_columns(rng: Random) -> list[tuple[str, str, Any]]:
    """Return names, kinds and widths of the columns; empty if the frame does not state them."""
    if rng.random() < 0.25:
        return []
    columns: list[tuple[str, str, Any]] = [rng.choice([("species", "S", 1), ("species", "S", 1), ("Z", "I", 1)])]
    columns.append(("pos", "R", 3))
    more = [("forces", "R", 3), ("label", "S", 1), ("mtt::q", "R", 1), ("fixed", "L", 1), ("occupancy", "R", 1)]
    columns += rng.sample(more, rng.choices([0, 1, 2], [5, 3, 2])[0])
    if rng.random() < 0.3:
        rng.shuffle(columns)
    if rng.random() < 0.02:
        odd: list[tuple[str, str, Any]] = [
            ("x", "Q", 1),
            ("pos", "R", 3),
            ("y", "R", rng.choice(_HOSTILE_NUMBERS)),
            ("z", "I", 0),
        ]
        columns.insert(rng.randrange(len(columns)), rng.choice(odd))
    return columns


def _xyz_row(rng: Random, columns: list[tuple[str, str, Any]]) -> str:
    """Return the line of an atom."""
    values: list[str] = []
    for name, kind, width in columns:
        if name == "species":
            values.append(word(rng, rng.choice([*_SYMBOLS[:9], "11", '"Cl"'])))
        elif name == "Z":
            values.append(rng.choice(["11", "17", str(rng.randrange(120))]))
        elif kind == "S":
            values.append(rng.choice(["a", '"a b"', '"', '"a \\" b"', "''", word(rng, "a", 0.1)]))
        elif kind == "L":
            values.append(rng.choice("TF"))
        elif name == "occupancy":
            values.append(rng.choices(["1", "1.0", number(rng, 0, 1.1)], [20, 5, 1])[0])
        else:
            values += [_fortran(rng, number(rng, -9, 9, 0.002)) for _ in range(width if width in (1, 3) else 1)]
    return " ".join(values)


def _fortran(rng: Random, value: str) -> str:
    """Return a number, sometimes in Fortran's notation."""
    return value.replace("e", rng.choice("dD")) if "e" in value and rng.random() < 0.5 else value


def a_poscar(rng: Random) -> bytes:
    """Return a POSCAR."""
    counts = [
        rng.choices([1, 2, 4, 30, 0], [9, 5, 2, 1, 1])[0] for _ in range(rng.choices([1, 2, 4, 60], [4, 4, 2, 0.2])[0])
    ]
    said = [str(n) if rng.random() > 0.01 else rng.choice(["-1", "999999999", "1.0", "x", "\u0663"]) for n in counts]
    scale = rng.choices(
        [
            "1.0",
            number(rng, 0.9, 1.1),
            "-100",
            " ".join(number(rng, 0.9, 1.1) for _ in range(3)),
            rng.choice(_HOSTILE_NUMBERS),
        ],
        [50, 10, 5, 5, 2],
    )[0]
    lines = [word(rng, "comment"), scale if rng.random() > 0.003 else "1 " * 5000]
    for row in range(3):
        lines.append(
            " ".join(number(rng, 3, 8) if row == k else rng.choice(["0", number(rng, -2, 2)]) for k in range(3))
        )
    lines.append(" ".join(word(rng, rng.choice([*_SYMBOLS[:10], "Fe_pv"]), 0.01) for _ in counts))
    lines.append(" ".join(said))
    lines += rng.choice([[], [], ["Selective dynamics"], ["s"]])
    lines.append(word(rng, rng.choice(["Direct", "Cartesian", "d", "k", "C"]), 0.02))
    lines += [" ".join(fraction(rng) for _ in range(3)) + rng.choice(["", " T T F", " Na"]) for _ in range(sum(counts))]
    if rng.random() < 0.02:
        del lines[rng.randrange(len(lines))]
    return "\n".join(lines).encode("utf-8", errors="surrogatepass")


def a_pymatgen_json(rng: Random) -> bytes:
    """Return structures in pymatgen's form: one, a list, or an object by ids; a line of `.jsonl` holds one."""
    documents = [_structure(rng) for _ in range(rng.choices([1, 2, 5], [6, 3, 1])[0])]
    value = rng.choice([documents[0], documents, {word(rng, f"mp-{k}", 0.05): d for k, d in enumerate(documents)}])
    return _json_text(rng, value).encode("utf-8", errors="surrogatepass")


def _structure(rng: Random) -> Any:
    """Return one structure, or an object that holds one."""
    sites = []
    for _ in range(count(rng)):
        shares = [
            {"element": _json_element(rng), "occu": rng.choices([1, 0.5, _json_number(rng, 0, 1)], [90, 1, 1])[0]}
        ]
        shares += shares * (rng.random() < 0.01)
        site: Any = {"species": shares, "abc": _json_place(rng)}
        sites.append(
            site if rng.random() > 0.002 else rng.choice([1, {}, {"species": _deep(rng), "abc": []}, {"species": []}])
        )
    lattice: Any = {
        "matrix": _json_matrix(rng),
        "pbc": rng.choices([[True] * 3, None, [True] * 3000, [1, 1, 0]], [20, 20, 1, 1])[0],
    }
    structure: Any = {"lattice": lattice, "sites": sites}
    if rng.random() < 0.02:
        structure = rng.choice(
            [{word(rng, "a", 1): 1}, _deep(rng), {"lattice": 1, "sites": []}, {"structure": structure}]
        )
    name: dict[str, Any] = rng.choice([{}, {"material_id": word(rng, "mp-1", 0.2)}, {"id": 10**400}, {"id": True}])
    return rng.choice([structure, {**name, "structure": structure}])


def a_file_of_records(rng: Random) -> bytes:
    """Return records with structures of several forms, in one of the layouts of files."""
    records = [_record(rng, k) for k in range(rng.choices([1, 2, 5], [3, 4, 3])[0])]
    names = list(dict.fromkeys(key for record in records if isinstance(record, dict) for key in record))
    rows = [[record.get(name) if isinstance(record, dict) else record for name in names] for record in records]
    columns = {name: {str(k): row[place] for k, row in enumerate(rows)} for place, name in enumerate(names)}
    ways: list[Any] = [
        records,
        records[0],
        {word(rng, f"mp-{k}", 0.05): record for k, record in enumerate(records)},
        columns,
        {"columns": names, "index": list(range(len(rows))), "data": rows},
        {"data": rows, "columns": names[: rng.randrange(9)], "index": _deep(rng)},
        {"links": {"next": None}, "meta": {"x": [1]}, "data": records},
        {"groups": {f"g{k}": {f"mp-{k}": record} for k, record in enumerate(records)}},
        {rng.choice(list(columns)): rng.choice([records, None, 1, {}])} if columns else [],
        [[record] for record in records],
    ]
    value = rng.choices(ways, [4, 3, 4, 4, 3, 1, 4, 1, 1, 1])[0]
    return _json_text(rng, value).encode("utf-8", errors="surrogatepass")


def _record(rng: Random, place: int) -> Any:
    """Return a record with one, several or no structures."""
    record: dict[str, Any] = rng.choice(
        [{}, {"material_id": word(rng, f"wbm-1-{place}", 0.1), "formula": "CsCl"}, {"jid": f"J-{place}", "gap": 0.5}]
    )
    keys = ["structure", "initial_structure", "entry", "atoms", "attributes", "output", "x", "cif", "steps"]
    for key in rng.sample(keys, rng.choices([1, 2, 0], [20, 2, 1])[0]):
        structure = rng.choice([_structure, _jarvis_atoms, _optimade_entry])(rng)
        wrapped = [
            structure,
            {"structure": structure, "energy": _json_number(rng, -9, 0)},
            json.dumps(structure),
            [structure],
        ]
        record[key] = rng.choices(wrapped, [20, 5, 1, 2])[0]
    if rng.random() < 0.02:
        record[word(rng, "note", 0.5)] = rng.choice(
            [_deep(rng), None, 10**400, [[]] * 99, {"a": {"b": {"c": _deep(rng)}}}]
        )
    return record if rng.random() > 0.02 else rng.choice([None, 1, "x", [], {}, _deep(rng)])


def _jarvis_atoms(rng: Random) -> dict[str, Any]:
    """Return atoms of JARVIS."""
    size = count(rng)
    atoms = {
        "lattice_mat": _json_matrix(rng),
        "coords": [_json_place(rng) for _ in range(size)],
        "elements": [_json_element(rng) for _ in range(size if rng.random() > 0.02 else 1)],
        "cartesian": rng.choices([False, True, None, "no"], [9, 4, 1, 1])[0],
    }
    return atoms if rng.random() > 0.02 else {key: rng.choice([value, None, {}, 1]) for key, value in atoms.items()}


def _optimade_entry(rng: Random) -> dict[str, Any]:
    """Return the attributes of an entry of OPTIMADE."""
    size = count(rng)
    names = [rng.choice(_SYMBOLS[:8]) for _ in range(size)]
    shares = [_json_number(rng, 0, 1)] if rng.random() < 0.05 else [1]
    species: Any = [
        {
            "name": name,
            "chemical_symbols": rng.choice([[name], [name], ["vacancy"], ["X"]]) if rng.random() < 0.05 else [name],
        }
        | rng.choice([{}, {"concentration": shares}, {"attached": rng.choice([None, ["H"]])}])
        for name in dict.fromkeys(names)
    ]
    entry = {
        "lattice_vectors": _json_matrix(rng),
        "cartesian_site_positions": [_json_place(rng) for _ in range(size)],
        "species_at_sites": names if rng.random() > 0.02 else [_json_element(rng) for _ in names],
        "species": rng.choices([species, json.dumps(species), None, "[", _deep(rng), [1]], [20, 5, 5, 1, 1, 1])[0],
    }
    extra: list[Any] = [None, [1, 1, 1], [1, 1, 0], ["a"]]
    return (
        entry
        | rng.choices([{}, {"dimension_types": rng.choice(extra)}, {"structure_features": ["disorder"]}], [6, 3, 1])[0]
    )


def a_result(rng: Random) -> bytes:
    """Return the arrays of CDVAE, as tensors or NumPy arrays, saved by torch."""
    import torch

    sizes = [rng.randrange(1, 9) for _ in range(rng.choices([1, 2, 5], [3, 3, 1])[0])]
    total = sum(sizes)
    numpy = np.random.default_rng(rng.randrange(2**32))
    arrays: dict[str, Any] = {
        "num_atoms": np.array(sizes),
        "lengths": numpy.uniform(3, 9, (len(sizes), 3)),
        "angles": numpy.choice([60, 90, 120, 100.5], (len(sizes), 3)),
        "atom_types": numpy.integers(1, 100, total),
        "frac_coords": numpy.random((total, 3)),
    }
    if rng.random() < 0.2:
        arrays["angles"] = np.radians(arrays["angles"])
    if rng.random() < 0.3:
        key = rng.choice(list(arrays))
        flat = arrays[key].astype(rng.choice(["f4", "f8", "f2"])) if rng.random() < 0.7 else arrays[key].copy()
        flat.flat[rng.randrange(flat.size)] = rng.choice(
            [0, -1, 1e30, math.nan, math.inf, 120] if flat.dtype.kind == "f" else [0, -1, 300]
        )
        odd: list[Any] = [
            flat,
            flat,
            flat,
            flat[:-1],
            flat[None],
            flat.tolist(),
            None,
            np.array(["a"]),
            [flat, flat],
            np.array(1),
        ]
        arrays[key] = rng.choice(odd)
    if rng.random() < 0.05:
        arrays.pop(rng.choice(list(arrays)))
    for key, value in arrays.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "if" and rng.random() < 0.5:
            arrays[key] = torch.from_numpy(value)
    saved = io.BytesIO()
    torch.save(arrays, saved, _use_new_zipfile_serialization=rng.random() > 0.1)
    return saved.getvalue()


def an_ase_json(rng: Random) -> bytes:
    """Return a database of ASE as JSON."""
    rows: dict[str, Any] = {}
    for k in range(1, rng.choices([2, 3, 5], [6, 3, 1])[0]):
        size = count(rng)
        numbers, positions = [rng.randrange(1, 119) for _ in range(size)], [_json_place(rng) for _ in range(size)]
        row: dict[str, Any] = {"numbers": numbers, "positions": positions, "cell": _json_matrix(rng), "pbc": [True] * 3}
        if rng.random() < 0.3:
            shape = rng.choices([[size], [size, 3], [10**18], [-1], [0, 10**30], "x", 3], [40, 9, 1, 1, 1, 1, 1])[0]
            row["numbers"] = {"__ndarray__": [shape, "int64", numbers]}
        if rng.random() < 0.1:
            row[rng.choice(list(row))] = rng.choice(
                [None, [], {}, "x", _deep(rng), {"array": 1}, {"__ndarray__": 1}, [True] * 3000]
            )
        if rng.random() < 0.2:
            row["key_value_pairs"] = rng.choice([{"id": word(rng, "a", 0.3)}, [], 1, "x", {"name": 1}])
        rows[str(k) if rng.random() > 0.03 else word(rng, "", 1)] = row
    value = {**rows, "ids": list(range(len(rows))), "nextid": 9}
    return _json_text(rng, value).encode("utf-8", errors="surrogatepass")


def an_ase_db(rng: Random) -> bytes:
    """Return a database of ASE as SQLite, with a changed value or schema."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(_sound_database())
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for _ in range(rng.choice([0, 1, 1, 2])):
                _change_database(rng, connection)
            connection.commit()
        return path.read_bytes()


@functools.cache
def _sound_database() -> bytes:
    """Return a valid database with three rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with ase.db.connect(str(path), use_lock_file=False) as database:
            for length in (3.4, 4.0, 5.0):
                database.write(Atoms("NaCl", [[0, 0, 0], [length / 2] * 3], cell=[length] * 3, pbc=True), name="salt")
        return path.read_bytes()


def _change_database(rng: Random, connection: sqlite3.Connection) -> None:
    """Change one value, or a table."""
    column = rng.choice(["numbers", "positions", "cell", "pbc", "key_value_pairs", "id"])
    values: list[Any] = [
        *(None, 0, -1, 1.5, "x", "", b"", b"\xff" * 7, b"\0" * 72, rng.randbytes(24), rng.randbytes(72), "x" * 3000),
        *(
            np.full(9, 1e308).tobytes(),
            np.full(9, np.nan).tobytes(),
            np.full(2, 10**9, "<i4").tobytes(),
            "[" * 990 + "]" * 990,
        ),
        *('{"name": "' + word(rng, "a", 1).replace("\n", "\\n") + '"}', "{}", "[]", '{"id": 1e999}', 2**62),
    ]
    value = rng.choice(values)
    changes: list[tuple[str, tuple[Any, ...]]] = [
        (f"UPDATE systems SET {column} = ? WHERE id = {rng.randrange(1, 4)}", (value,)),
        (f"ALTER TABLE systems DROP COLUMN {column}", ()),
        ("ALTER TABLE systems RENAME TO other", ()),
        ("CREATE TABLE copy AS SELECT * FROM systems", ()),
        ("DROP TABLE information", ()),
        ("UPDATE information SET value = ? WHERE name = 'version'", (value,)),
        ("DELETE FROM systems", ()),
    ]
    try:
        change, arguments = rng.choices(changes, [60, 3, 2, 6, 1, 3, 1])[0]
        connection.execute(
            change, tuple(a.encode("utf-8", "replace").decode() if isinstance(a, str) else a for a in arguments)
        )
        if change.startswith("CREATE"):  # a table whose ids are no keys
            connection.execute("DROP TABLE systems")
            connection.execute("ALTER TABLE copy RENAME TO systems")
            connection.execute(f"UPDATE systems SET {column} = ? WHERE natoms = 2", (values[rng.randrange(5)],))
    except sqlite3.Error:
        return  # SQLite rejects this change


def an_archive(rng: Random, suffix: str) -> bytes:
    """Return an archive of CIFs, by the suffix of its name."""
    packed = io.BytesIO()
    members = [
        (word(rng, f"{k}.cif", 0.05).replace("\0", "") + rng.choice(["", ".cif"]), a_cif(rng))
        for k in range(rng.randrange(4))
    ]
    if suffix == ".zip":
        with (
            warnings.catch_warnings(),
            zipfile.ZipFile(packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file,
        ):
            warnings.simplefilter("ignore")
            for name, content in members:
                file.writestr(name.encode("utf-8", "replace").decode() or "x.cif", content)
        return packed.getvalue()
    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    with tarfile.open(fileobj=packed, mode="w:gz" if suffix == ".tar.gz" else "w", format=rng.choice(formats)) as file:
        for name, content in members:
            member = tarfile.TarInfo(name[:90].encode("utf-8", "replace").decode())
            member.size = len(content)
            member.pax_headers = (
                {rng.choice(["size", "mtime", "GNU.sparse.size", "path", "x"]): rng.choice(_HOSTILE_NUMBERS)[:300]}
                if rng.random() < 0.2
                else {}
            )
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def mutated(rng: Random, content: bytes, other: bytes) -> bytes:
    """Return bytes with a few changes: flipped, cut, doubled, spliced with others, or with inserted tokens."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 2, 8, 100, 4000]))
        action = rng.randrange(9)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif action == 2:
            del data[at:end]
        elif action == 3:
            data[at:at] = data[at:end] * rng.choice([1, 1, 2, 50])
        elif action == 4:
            start = rng.randrange(len(other) + 1)
            data[at:end] = other[start : start + (end - at)]
        elif action == 5:
            data[at:at] = rng.choice(_HOSTILE_WORDS).encode("utf-8", "surrogatepass")
        elif action == 6:
            _swap_number(rng, data)
        elif action == 7:
            lines = bytes(data).split(b"\n")
            rng.shuffle(lines) if rng.random() < 0.1 else lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            data = bytearray(b"\n".join(lines))
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def _swap_number(rng: Random, data: bytearray) -> None:
    """Replace a word that has a digit by a hostile number."""
    words = [match for match in _DIGITS.finditer(data)]
    if words:
        match = rng.choice(words)
        data[match.start() : match.end()] = rng.choice(_HOSTILE_NUMBERS).encode()


def dressed(rng: Random, content: bytes) -> bytes:
    """Return bytes in another encoding, with other line ends, or gzipped."""
    kind = rng.choices(["", "crlf", "bom", "utf-16", "latin-1", "gzip", "cr"], [90, 2, 2, 2, 2, 2, 1])[0]
    if kind == "gzip":
        return gzip.compress(content, mtime=0)
    if kind == "bom":
        return b"\xef\xbb\xbf" + content
    if kind in ("crlf", "cr"):
        return content.replace(b"\n", b"\r\n" if kind == "crlf" else b"\r")
    return content.decode("utf-8", "replace").encode(kind, "replace") if kind else content


FORMATS: dict[str, tuple[str, str, Callable[[Random], bytes]]] = {  # kind of source, name of the file, grammar
    "cif": ("cif_folder", "a.cif", a_cif),
    "csv": ("csv", "a.csv", a_table),
    "dictionary": ("crystal_dictionary", "a.jsonl", a_dictionary),
    "xyz": ("extxyz", "a.xyz", an_xyz),
    "poscar": ("poscar", "POSCAR", a_poscar),
    "pymatgen": ("pymatgen_json", "a.json", a_pymatgen_json),
    "records": ("pymatgen_json", "a.json", a_file_of_records),
    "pt": ("cdvae_result", "a.pt", a_result),
    "ase_json": ("ase_db", "a.json", an_ase_json),
    "ase_db": ("ase_db", "a.db", an_ase_db),
    "tar": ("cif_folder", "a.tar", lambda rng: an_archive(rng, ".tar")),
    "tar_gz": ("cif_folder", "a.tar.gz", lambda rng: an_archive(rng, ".tar.gz")),
    "zip": ("cif_folder", "a.zip", lambda rng: an_archive(rng, ".zip")),
}


def broken_input(rng: Random, name: str, real: tuple[bytes, ...] = ()) -> bytes:
    """Return an input of a format: written by the grammar, or a mutated file of the grammar or a real one."""
    write = FORMATS[name][2]
    content = rng.choice(real) if real and rng.random() < 0.4 else write(rng)
    if rng.random() < 0.5:
        content = mutated(rng, content, rng.choice(real) if real and rng.random() < 0.5 else write(rng))
    return dressed(rng, content) if name not in ("ase_db", "pt", "tar", "tar_gz", "zip") else content
