"""The stages of the paper's page: commands that make its parts. Each runs once and is timed.

A stage is done if its commands succeeded and its outputs exist. `FOLDER/NAME.json` then records its wall time and a
key, made of its commands and the contents of its inputs. A stage with a changed key runs again. If a stage fails, the
log names it and the others run. A killed stage runs again as a whole, in an empty folder; results that its commands
cache elsewhere (energies) are reused.
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
        name: name of the stage, and of its record.
        commands: command lines, run one after the other.
        inputs: files whose contents are part of the key; a folder stands for its Python files.
        folder: folder of the outputs, emptied before the stage runs.
        outputs: names of files in `folder` that exist when the stage is done.
    """

    name: str
    commands: Sequence[Sequence[str]]
    inputs: Sequence[Path]
    folder: Path
    outputs: Sequence[str]


def run_stages(stages: Iterable[Stage], folder: Path, cwd: Path) -> list[dict[str, Any]]:
    """Run the stages that are not done; return one record for each stage.

    A record holds `name`, `seconds` (wall), `status` ("ran", "failed", or "kept" with the time of an earlier call) and
    `key`.

    Args:
        stages: the stages in their order.
        folder: folder of the records and of the output of the commands; created if it is missing.
        cwd: working folder of the commands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_run(stage, folder, cwd) for stage in stages]


def _run(stage: Stage, folder: Path, cwd: Path) -> dict[str, Any]:
    """Run one stage, or keep its outputs."""
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
    """Run the commands of a stage; return the reason of a failure, or None."""
    with said.open("w", encoding="utf-8") as file:
        for command in stage.commands:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=cwd).returncode
            if code != 0:
                return f"exit code {code} of {' '.join(command[:4])} ..."
    return f"{', '.join(_missing(stage))} was not written" if _missing(stage) else None


def _missing(stage: Stage) -> list[str]:
    """Return the missing outputs."""
    return [name for name in stage.outputs if not (stage.folder / name).exists()]


def _key(stage: Stage) -> str:
    """Return the digest of a stage's commands and inputs."""
    digest = hashlib.sha256(json.dumps([list(command) for command in stage.commands]).encode())
    for path in stage.inputs:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file).encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
