"""Entries of the Materials Project for a hull: all phases in the chemical systems of crystals, on the scale of CHGNet.

The request is for energies of the thermo type GGA_GGA+U, with the corrections of 2020. By default the server would mix
them with r2SCAN, which is another scale; an answer with another functional is an error. The key comes from MP_API_KEY
and is sent to the server only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from ase.data import chemical_symbols

from crystens.crystal import Crystal
from crystens.datasets.materials_project import api_client, api_key
from crystens.energies.entry_files import check_functionals, corrected_energy, functional_of
from crystens.energies.potentials import MP2020
from crystens.errors import CrystensError
from crystens.processes.atomic_file import write_whole

MOST_ELEMENTS = 9  # largest system that the server's client can request
_ASKED = {"thermo_types": ["GGA_GGA+U"]}


def chemical_systems(crystals: Iterable[Crystal]) -> list[tuple[str, ...]]:
    """Return the systems to request, as sorted symbols: systems of the crystals that are part of no larger one.

    Raises:
        CrystensError: for a crystal of more than `MOST_ELEMENTS` elements.
    """
    found = {frozenset(chemical_symbols[number] for number in set(crystal.numbers.tolist())) for crystal in crystals}
    large = [system for system in found if len(system) > MOST_ELEMENTS]
    if large:
        raise CrystensError(
            f"{'-'.join(sorted(large[0]))} has {len(large[0])} elements; the Materials Project can be asked for at "
            f"most {MOST_ELEMENTS} at once"
        )
    return sorted(tuple(sorted(system)) for system in found if not any(system < other for other in found))


def fetch_entries(
    systems: Sequence[tuple[str, ...]],
    out: Path,
    progress: Callable[[int], None] | None = None,
    rester: Any = None,
) -> int:
    """Write all entries of chemical systems and their sub-systems to a file, and return their number.

    `crystens.energies.entry_files.read_hull_reference` reads the file with the scale MP2020. During the download
    `FILE.part` holds the entries, one line for each system, so that an interrupted call resumes.

    Args:
        systems: symbols of the elements, see `chemical_systems`.
        out: a `.json` file.
        progress: called with the number of systems done.
        rester: mp-api's MPRester; None makes one with the key in MP_API_KEY.

    Raises:
        CrystensError: if mp-api or the key is missing, the server cannot be reached, or the file cannot be written.
    """
    if out.suffix != ".json":
        raise CrystensError(f"{out}: entries are written as JSON; give a name that ends with .json")
    part = out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        known = _read_part(part)
    except OSError as error:
        raise CrystensError(f"cannot write {out}: {error.strerror}; choose another place") from error
    todo = [system for system in systems if "-".join(system) not in known]
    refused: tuple[type[Exception], ...] = (requests.RequestException, ValueError, KeyError)
    if todo and rester is None:
        key, client = api_key(), api_client()
        rester = client.MPRester(key, mute_progress_bars=True)
        refused = (*refused, client.MPRestError)
    with part.open("a", encoding="utf-8") as file:
        for done, system in enumerate(todo, start=len(systems) - len(todo)):
            if progress is not None:
                progress(done)
            name, entries = "-".join(system), _asked(rester, system, refused)
            file.write(json.dumps({"system": name, "entries": entries}) + "\n")
            file.flush()
            known[name] = entries
    unique = {entry["entry_id"]: entry for system in systems for entry in known["-".join(system)]}
    write_whole(out, json.dumps([unique[name] for name in sorted(unique)]) + "\n", "choose another place")
    part.unlink()
    if progress is not None:
        progress(len(systems))
    return len(unique)


def _asked(rester: Any, system: tuple[str, ...], refused: tuple[type[Exception], ...]) -> list[dict[str, Any]]:
    """Return the entries of one system as plain dictionaries."""
    try:
        entries = rester.get_entries_in_chemsys(list(system), additional_criteria=dict(_ASKED))
    except refused as error:  # not `from error`: its text could hold the key
        text = " ".join(str(error).split())[:300].replace(os.environ.get("MP_API_KEY") or "\0", "***")
        raise CrystensError(
            f"the Materials Project does not give the entries of {'-'.join(system)}: {text or type(error).__name__}; "
            "run the same command again to resume"
        ) from None
    items = [entry if isinstance(entry, Mapping) else entry.as_dict() for entry in entries]
    check_functionals(items, MP2020, f"the Materials Project's answer for {'-'.join(system)}")
    return [
        {
            "composition": {str(element): float(amount) for element, amount in item["composition"].items()},
            "energy": corrected_energy(item),
            "entry_id": str(item["entry_id"]),
            "run_type": functional_of(item),
        }
        for item in items
    ]


def _read_part(part: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the entries that an interrupted call fetched, by system; an incomplete last line is dropped."""
    if not part.exists():
        return {}
    lines = part.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        part.write_bytes(b"".join(lines))
    found = [json.loads(line) for line in lines]
    return {line["system"]: line["entries"] for line in found}
