"""The command lines of train.py and sample.py: Hydra, and errors that a person can mend in one line.

A misspelt key or group is answered with the nearest that exists; a `CrystensError` is printed as one line. Both exit
with status 1 and without a traceback; set CRYSTENS_TRACEBACK=1 to see it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crystens.errors import CrystensError, first_line
from crystens.tasks import objective_value

FAILED = "error.txt"  # in the folder of a job of a sweep that failed: why
_INSTALL = {name: '-e ".[sweep]"' for name in ("joblib", "submitit_slurm", "submitit_local", "optuna")}
_INSTALL["ray"] = '-e ".[ray-sweep]", in an environment of its own'


def main(task: Callable[[DictConfig], Path], conf: Path, name: str) -> None:
    """Compose the config `name` of the folder `conf` from the command line and run a task on it.

    Args:
        task: gets the composed config and returns its folder; with `-m`, once for each job.
        conf: absolute path of the folder of configs.
        name: of the main config, without ".yaml".
    """

    def job(cfg: DictConfig) -> float | None:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            with _one_line_errors():
                # A further process of a job on several devices runs that job alone.
                if HydraConfig.get().runtime.choices.get("sweep") and "LOCAL_RANK" not in os.environ:
                    raise CrystensError("sweep=... searches with -m; without -m nothing would be searched")
                task(cfg)
            return None
        reason = Path(HydraConfig.get().runtime.output_dir) / FAILED
        reason.unlink(missing_ok=True)
        try:
            return objective_value(cfg, task(cfg))
        except Exception as error:  # whatever it is, one bad job does not end a sweep, whose status is 1 at its end
            told = str(error) if isinstance(error, CrystensError) else "".join(traceback.format_exception(error))
            print(f"error: job {HydraConfig.get().job.num}: {told}", file=sys.stderr)
            reason.write_text(f"{told}\n")  # jobs may run in other processes and on other machines
            return None  # so a sweeper is told

    # Hydra's parser takes overrides in one run only; `sample.py images=FILE -m decode.atom_clusters=2,3` has two.
    overrides = [text for text in sys.argv[1:] if text.startswith("~") or ("=" in text and not text.startswith("-"))]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in overrides] + overrides
    with _one_line_errors():
        check_overrides(overrides, conf, name)
    hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(job)()


class FailedJobs(Callback):
    """Ends a sweep with status 1 when all jobs are done and some of them failed, in whichever process."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Look for what failed jobs left in their folders."""
        failed = sorted(Path(config.hydra.sweep.dir).rglob(FAILED))
        if failed:
            print(f"error: {len(failed)} failed: {', '.join(map(str, failed))}", file=sys.stderr)
            sys.exit(1)


def check_overrides(overrides: Sequence[str], conf: Path, name: str) -> None:
    """Raise a CrystensError, with the nearest key or choice that exists, unless the overrides can be composed.

    Of a sweep (`model=gan,wgan`) each value is tried.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise CrystensError(
            f"cannot read the command line: {first_line(error)}; quote values with special characters twice, as in "
            "\"data.path='/data/a folder, é'\""
        ) from error
    for override in parsed:
        if override.value() == "None":  # as W&B's sweeps write it
            raise CrystensError(f"{override.input_line} sets the word None; write {override.get_key_element()}=null")
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        chosen = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        lines = [chosen, *([*chosen, line] for override in parsed for line in _sweep_lines(override))]
        for line in lines:
            _try(line, conf, name)


def _sweep_lines(override: Override) -> list[str]:
    """Return one override for each value of a sweep over choices; other sweeps cannot be tried one by one."""
    if not override.is_choice_sweep():
        return []
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _try(overrides: list[str], conf: Path, name: str) -> None:
    """Compose once; turn what goes wrong into a CrystensError."""
    try:
        compose(config_name=name, overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        cause = f": {first_line(error.__cause__)}" if error.__cause__ and "Error merging" in str(error) else ""
        resumes = "Could not override" in str(error) and any(line.startswith("resume=") for line in overrides)
        hint = "; a key that only the run that goes on has is set with +KEY=VALUE" if resumes else ""
        raise CrystensError(_explain(str(error), conf, name) + cause + hint) from error
    except ValueError as error:  # Hydra's own for overrides such as "=3"
        raise CrystensError(f"cannot read the command line: {first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise CrystensError(f"the config does not fit: {first_line(error)}") from error


def _explain(message: str, conf: Path, name: str) -> str:
    """Return what went wrong in composing a config, with the nearest name that exists."""
    key = re.search(r"Could not override '([^']+)'", message)
    if key:
        wrong = key.group(1)
        if wrong in _all_keys(compose(config_name=name)):
            return f"the config key '{wrong}' does not exist beside the other choices made here; `--cfg job` prints all"
        near = _nearest(wrong, _all_keys(compose(config_name=name)))
        return f"there is no config key '{wrong}'{near}; `--cfg job` prints all keys"
    choice = re.search(r"Could not find '([^']+)/([^'/]+)'", message)
    if choice:
        group, wrong = choice.groups()
        if group.startswith("hydra/") and wrong in _INSTALL:
            return f"{group}={wrong} is not installed: pip install {_INSTALL[wrong]}"
        choices = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        return f"there is no {group}={wrong}{_nearest(wrong, choices)}; choices: {', '.join(choices)}"
    return first_line(ValueError(message))


def _nearest(wrong: str, names: Sequence[str]) -> str:
    """Return ", did you mean ...?" for the nearest name, or nothing."""
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _all_keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of all keys."""
    keys: list[str] = []
    for key in map(str, cfg):
        dotted = f"{prefix}{key}"
        keys.append(dotted)
        if not OmegaConf.is_missing(cfg, key) and not OmegaConf.is_interpolation(cfg, key):
            value = cfg._get_node(key)
            if isinstance(value, DictConfig) and not value._is_none():
                keys += _all_keys(value, f"{dotted}.")
    return keys


class _one_line_errors:
    """Prints a CrystensError as one line and exits with status 1; lets everything else pass."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Print and exit, unless the traceback was asked for."""
        if isinstance(error, KeyboardInterrupt):
            print("error: interrupted", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, CrystensError) and os.environ.get("CRYSTENS_TRACEBACK", "") in ("", "0"):
            sys.stdout.flush()
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
