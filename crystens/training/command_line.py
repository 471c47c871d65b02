"""The command lines of train and sample: Hydra, with errors of one line.

An unknown key or group is an error that names the nearest existing one, before any work. Hydra's `--config-dir DIR` and
`hydra.searchpath=[DIR]` add folders of configs to those of crystens.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import crystens
from crystens.asking.question import Question
from crystens.configs.keys import check_keys, nearest, no_such_key
from crystens.errors import CrystensError, first_line
from crystens.processes.atomic_file import write_whole
from crystens.processes.command import exit_status
from crystens.training.schemas import SampleConfig, TrainConfig
from crystens.training.tasks import objective_value

FAILED = "error.txt"  # reason of a failed job of a sweep, in the folder of the job
# Keys whose values are texts, without Hydra's grammar.
_TEXTS = (
    *("condition.formula", "condition.chemical_system", "condition.elements", "condition.space_group"),
    "condition.structure",
)
_CONDITION = "condition."
_CONDITIONS = tuple(f"{_CONDITION}{field.name}" for field in fields(Question))  # other names are properties
_INSTALL = {name: '-e ".[sweep]"' for name in ("joblib", "submitit_slurm", "submitit_local", "optuna")}
_INSTALL["ray"] = '-e ".[ray-sweep]", in an environment of its own'
# By schema: the name of the command, and a hint for unknown keys.
_COMMANDS = {
    TrainConfig: ("train", ""),
    SampleConfig: ("sample", "; conditions on samples are keys such as condition.formula=SrTiO3"),
}


def main(
    task: Callable[[DictConfig], Path],
    name: str,
    program: Sequence[str] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Compose the config `name` from the command line and run a task on it.

    Args:
        task: takes the composed config and returns its folder; called once for each job with `-m`.
        name: name of the main config, without ".yaml".
        program: words of the command before its arguments; None takes the running script.
        arguments: arguments of the command line; None takes those of this process.
    """
    program = list(sys.argv[:1] if program is None else program)
    before = sys.argv
    # Hydra reads sys.argv, and its usage line says sys.argv[0].
    given = before[1:] if arguments is None else arguments
    arguments = [_as_written(argument) for argument in given]
    sys.argv = [" ".join([Path(program[0]).name, *program[1:]]), *arguments]
    try:
        options = get_args_parser().parse_intermixed_args()
        # Hydra's parser takes overrides in one run only; `sample.py images=FILE -m decode.atom_clusters=2,3` has two.
        chosen = [argument for argument in sys.argv[1:] if argument not in options.overrides]
        sys.argv[1:] = [*chosen, *options.overrides]
        if not options.shell_completion:  # its overrides are words of Hydra
            status = exit_status(lambda: _checked(options, name))
            if status:
                sys.exit(status)
        OmegaConf.register_new_resolver("own_groups", _own_groups, replace=True)
        job = _job(task, [os.path.abspath(program[0]), *program[1:], *_sources(options)])
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=name)(job)()
    finally:
        sys.argv = before


def _as_written(argument: str) -> str:
    """Return an argument of the command line, quoted for Hydra if it is a formula or a sentence.

    Hydra's grammar gives a meaning to the brackets, commas and blanks of Ca3(PO4)2 or "a cubic oxide, black", and
    reads NaN and InF as numbers. Quoted values are returned unchanged.
    """
    key, equals, value = argument.partition("=")
    if equals and key.startswith(_CONDITION) and key not in _CONDITIONS:
        return f"+{argument}"  # a property, which no config lists
    told = key.lstrip("+") in _TEXTS and value[:1] not in ("'", '"', "[") and not value.isdigit() and value != "null"
    if not equals or not told or (key.endswith("space_group") and "," in value):  # a sweep over groups
        return argument
    return f"{key}='{value}'" if "'" not in value else f'{key}="{value}"'


def conf_folder() -> Path:
    """Return the folder of configs: in the package where a wheel put it, beside the package in a clone."""
    package = Path(crystens.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def _job(task: Callable[[DictConfig], Path], command: list[str]) -> Callable[[DictConfig], float | None]:
    """Return the function that Hydra calls for each job, perhaps in another process or on another machine.

    Args:
        task: takes the composed config and returns its folder.
        command: words of this command before its overrides.
    """

    def job(cfg: DictConfig) -> float | None:
        config = HydraConfig.get()
        # Lightning starts processes for further devices with sys.argv. They must run this job, not the whole sweep.
        searched = [line for line in config.overrides.hydra if line.startswith("hydra.searchpath=")]
        sys.argv = [*command, *searched, *config.overrides.task]
        if config.mode != RunMode.MULTIRUN:
            status = exit_status(lambda: _alone(task, cfg))
            if status:
                sys.exit(status)
            return None
        reason = Path(config.runtime.output_dir) / FAILED
        reason.unlink(missing_ok=True)
        try:
            return objective_value(cfg, task(cfg))
        except Exception as error:  # of any kind: a failed job does not end the sweep, whose status is then 1
            told = str(error) if isinstance(error, CrystensError) else "".join(traceback.format_exception(error))
            print(f"error: job {config.job.num}: {told}", file=sys.stderr)
            write_whole(reason, f"{told}\n")  # jobs may run in other processes and on other machines
            return None  # tells the sweeper of the failure

    return job


def _alone(task: Callable[[DictConfig], Path], cfg: DictConfig) -> None:
    """Run a task without a sweep."""
    # A further process of a job on several devices runs that job alone.
    if HydraConfig.get().runtime.choices.get("sweep") and "LOCAL_RANK" not in os.environ:
        raise CrystensError("sweep=... searches with -m; without -m nothing would be searched")
    task(cfg)


def _sources(options: argparse.Namespace) -> list[str]:
    """Return the options of a command line for folders of configs, with absolute paths."""
    return [
        *(["--config-path", options.config_path] if options.config_path else []),
        *(["--config-name", options.config_name] if options.config_name else []),
        *(["--config-dir", os.path.abspath(options.config_dir)] if options.config_dir else []),
    ]


def _checked(options: argparse.Namespace, name: str) -> None:
    """Raise a CrystensError if no config can be composed from a command line that Hydra parsed."""
    if options.config_path and not os.path.isabs(options.config_path) and "://" not in options.config_path:
        raise CrystensError(
            f"--config-path {options.config_path} must be absolute, and replaces the configs of crystens; to add a "
            "folder of your own, give --config-dir"
        )
    if options.config_dir and not Path(options.config_dir).is_dir():
        raise CrystensError(f"--config-dir {options.config_dir} is not a folder")
    check_overrides(
        options.overrides,
        options.config_name or name,
        options.config_path or conf_folder(),
        options.config_dir,
    )


class FailedJobs(Callback):
    """Ends a sweep with status 1 if any job failed, in any process."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Look for the reasons that failed jobs wrote into their folders."""
        failed = sorted(Path(config.hydra.sweep.dir).rglob(FAILED))
        if failed:
            print(f"error: {len(failed)} failed: {', '.join(map(str, failed))}", file=sys.stderr)
            sys.exit(1)


def check_overrides(
    overrides: Sequence[str], name: str, conf: str | Path | None = None, more: str | Path | None = None
) -> None:
    """Raise a CrystensError, with the nearest existing key or choice, if the overrides cannot be composed.

    Each value of a sweep (`model=gan,wgan`) is tried.

    Args:
        overrides: overrides as on the command line.
        name: name of the main config, without ".yaml".
        conf: folder of configs; None takes the folder of crystens.
        more: folder of further configs.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise CrystensError(
            f"cannot read the command line: {first_line(error)}; quote values with special characters twice, as in "
            "\"data.path='/data/a folder, é'\""
        ) from error
    for override in parsed:
        if override.value() == "None":  # W&B's sweeps write None for null
            raise CrystensError(f"{override.input_line} sets the word None; write {override.get_key_element()}=null")
    conf = conf_folder() if conf is None else conf
    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
        search = create_config_search_path(str(conf))
        if more is not None:  # in the place of --config-dir in Hydra
            search.prepend("command-line", f"file://{os.path.abspath(more)}", SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2("check", search)
        chosen = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        lines = [chosen, *([*chosen, line] for override in parsed for line in _sweep_lines(override))]
        for line in lines:
            _try(line, name)


def _sweep_lines(override: Override) -> list[str]:
    """Return one override for each value of a sweep over choices; empty for other sweeps."""
    if not override.is_choice_sweep():
        return []
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _try(overrides: list[str], name: str) -> None:
    """Compose once; turn an error into a CrystensError."""
    try:
        cfg = compose(config_name=name, overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        cause = f": {first_line(error.__cause__)}" if error.__cause__ and "Error merging" in str(error) else ""
        goes_on = any(line.startswith(("resume=", "pretrained=")) for line in overrides)
        hint = ""
        if goes_on and "Could not override" in str(error):
            hint = "; a key that only the run or the checkpoint has is set with +KEY=VALUE"
        raise CrystensError(_explain(str(error), overrides, name) + cause + hint) from error
    except ValueError as error:  # raised by Hydra for overrides such as "=3"
        raise CrystensError(f"cannot read the command line: {first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise CrystensError(f"the config does not fit: {first_line(error)}") from error
    schema = OmegaConf.get_type(cfg)
    if schema not in _COMMANDS:
        raise CrystensError(
            f"the config {name} does not build on one of crystens; begin it with `defaults: [train, _self_]`, or sample"
        )
    title, hint = _COMMANDS[schema]
    check_keys(cfg, schema, title, hint)


def _own_groups(*, _root_: DictConfig) -> str:
    """Return the groups of a composed config for `--help`, one line each with all choices."""
    loader = GlobalHydra.instance().config_loader()
    groups = sorted(group for group in _root_.hydra.runtime.choices if not group.startswith("hydra/"))
    return "\n".join(f"{group}: {', '.join(loader.get_group_options(group))}" for group in groups)


def _explain(message: str, overrides: list[str], name: str) -> str:
    """Return the error of composing a config in one line, with the nearest existing name."""
    key = re.search(r"Could not override '([^']+)'", message)
    if key:
        wrong = key.group(1)
        cfg = compose(config_name=name)
        schema = OmegaConf.get_type(cfg)
        if schema in _COMMANDS and "." not in wrong and wrong not in cfg:
            title, hint = _COMMANDS[schema]
            return no_such_key(wrong, sorted(field.name for field in fields(schema)), title) + hint
        if wrong in _all_keys(cfg):
            return f"the config key '{wrong}' does not exist beside the other choices made here; `--cfg job` prints all"
        return f"there is no config key '{wrong}'{nearest(wrong, _all_keys(cfg))}; `--cfg job` prints all keys"
    choice = re.search(r"Could not find '([^']+)/([^'/]+)'", message)
    if choice:
        group, wrong = choice.groups()
        if group.startswith("hydra/") and wrong in _INSTALL:
            return f"{group}={wrong} is not installed: pip install {_INSTALL[wrong]}"
        choices = GlobalHydra.instance().config_loader().get_group_options(group, None, name, overrides)
        return f"there is no {group}={wrong}{nearest(wrong, choices)}; choices: {', '.join(choices)}"
    return first_line(ValueError(message))


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
