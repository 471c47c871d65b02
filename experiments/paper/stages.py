"""The stages of the paper's page: commands that each make a part of it, run once, timed, and not again.

A stage is done when its commands ended well and its outputs are there; what is remembered of it (`FOLDER/NAME.json`) is
its wall time and a key made of its commands and of the contents of its inputs. It is
run again when the key changes. A stage that fails is told, and the others go on. One that is killed is run again as a
whole, in an empty folder, but what its commands keep elsewhere (energies) is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystens.processes.atomic_file import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One part of the page.

    Attributes:
        name: of the stage, and of its record.
        commands: command lines, run one after the other.
        inputs: files whose contents decide whether it is run again; of a folder all its Python files.
        folder: what it makes goes here; emptied before it is run.
        outputs: names of files in it that are there when it is done.
    """

    name: str
    commands: Sequence[Sequence[str]]
    inputs: Sequence[Path]
    folder: Path
    outputs: Sequence[str]


def run_stages(stages: Iterable[Stage], folder: Path, cwd: Path) -> list[dict[str, Any]]:
    """Run what is not done; return one record a stage.

    A record holds `name`, `seconds` (wall), `status` ("ran", "kept" from an earlier
    call, whose time it then gives, or "failed") and `key`.

    Args:
        stages: in their order.
        folder: for records and what the commands say; made if it is not there.
        cwd: where the commands are run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_run(stage, folder, cwd) for stage in stages]


def _run(stage: Stage, folder: Path, cwd: Path) -> dict[str, Any]:
    """Run one stage, or keep what it made."""
    record, said = folder / f"{stage.name}.json", folder / f"{stage.name}.log"
    key = _key(stage)
    if record.exists() and not _missing(stage):
        kept = json.loads(record.read_text())
        if kept["key"] == key:
            log.info("%s: kept (took %.0f s)", stage.name, kept["seconds"])
            return {**kept, "status": "kept"}
    record.unlink(missing_ok=True)
    shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(parents=True)
    log.info("%s: %s", stage.name, "; ".join(" ".join(command) for command in stage.commands))
    start = time.monotonic()
    failure = _failure(stage, said, cwd)
    told = {
        "name": stage.name,
        "seconds": round(time.monotonic() - start, 1),
        "status": "ran",
        "key": key,
    }
    if failure:
        log.error("%s: FAILED after %.0f s, %s; see %s", stage.name, told["seconds"], failure, said)
        return {**told, "status": "failed"}
    write_whole(record, json.dumps(told, indent=1) + "\n")
    log.info("%s: done in %.0f s", stage.name, told["seconds"])
    return told


def _failure(stage: Stage, said: Path, cwd: Path) -> str | None:
    """Run the commands of a stage; return what went wrong, or None."""
    with said.open("w", encoding="utf-8") as file:
        for command in stage.commands:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=cwd).returncode
            if code != 0:
                return f"exit code {code} of {' '.join(command[:4])} ..."
    return f"{', '.join(_missing(stage))} was not written" if _missing(stage) else None


def _missing(stage: Stage) -> list[str]:
    """Return the outputs that are not there."""
    return [name for name in stage.outputs if not (stage.folder / name).exists()]


def _key(stage: Stage) -> str:
    """Return the digest of a stage's commands and inputs."""
    digest = hashlib.sha256(json.dumps([list(command) for command in stage.commands]).encode())
    for path in stage.inputs:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file).encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
