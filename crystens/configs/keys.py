"""Keys of a config that nothing reads: a request is refused before any work, and never ignored.

`+key=value` adds any key to a config, even to one with a schema. A class that is built with its keys as arguments
refuses unknown ones by itself. Nodes without `_target_` do not, and `_partial_` nodes do only when they are called.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from crystens.errors import CrystensError


def check_keys(cfg: DictConfig, schema: type, title: str, hint: str = "") -> None:
    """Raise a CrystensError, with the keys that there are, if a config has a key that its schema does not.

    Args:
        cfg: a composed config.
        schema: its dataclass; fields that are dataclasses are schemas of groups.
        title: of what has the keys, for the error.
        hint: at the end of the error.
    """
    known = sorted(field.name for field in fields(schema))
    for key in map(str, cfg):
        if key not in known and key != "hydra":
            raise CrystensError(no_such_key(key, known, title) + hint)
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind) and isinstance(cfg._get_node(name), DictConfig):
            names = [field.name for field in fields(kind)]
            for key in map(str, cfg[name]):
                if key not in names:
                    raise CrystensError(no_such_key(key, names, name, f"{name}."))


def check_arguments(config: Any, name: str) -> None:
    """Raise a CrystensError if a part of a config names no class, or sets what its class or function does not take.

    Args:
        config: what is to be instantiated; a list is one of such parts.
        name: of the part in the config, for the error.
    """
    if isinstance(config, Mapping) and config.get("_target_") is None:
        raise CrystensError(f"{name} names no class to build: it has no _target_")
    _check_partials(OmegaConf.to_container(config) if OmegaConf.is_config(config) else config, name)


def no_such_key(wrong: str, known: Sequence[str], title: str, above: str = "") -> str:
    """Return that there is no such key, the nearest that there is, and all; `above` stands before the key."""
    return f"there is no config key '{above}{wrong}'{nearest(wrong, known)}; {title} has {', '.join(known)}"


def nearest(wrong: str, names: Sequence[str]) -> str:
    """Return ", did you mean ...?" for the nearest name, or nothing."""
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _check_partials(config: Any, name: str) -> None:
    """Check the arguments of all partial calls in a plain config."""
    if isinstance(config, list):
        for index, part in enumerate(config):
            _check_partials(part, f"{name}[{index}]")
    if not isinstance(config, Mapping):
        return
    if config.get("_partial_") and isinstance(config.get("_target_"), str):
        _check_partial(config, name)
    for key, part in config.items():
        _check_partials(part, f"{name}.{key}")


def _check_partial(config: Mapping[str, Any], name: str) -> None:
    """Check the arguments of one partial call, where its signature is known."""
    try:
        parameters = inspect.signature(get_object(config["_target_"])).parameters
    except Exception:  # instantiate says what is wrong with a target; a compiled function has no signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in config:
        if not key.startswith("_") and key not in parameters:
            raise CrystensError(no_such_key(key, list(parameters), config["_target_"], f"{name}."))
