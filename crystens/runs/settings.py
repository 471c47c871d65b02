"""Settings of a run as a flat table, and the settings in which runs differ.

A setting has a dotted name as on the command line, `decode.atom_clusters`. The class that a part of a config is built
from is listed under the name of that part: `model._target_: crystens.models.gan.GAN` is the setting `model` with the
value `crystens.models.gan.GAN`, shown as `GAN`. Values are compared as in config.yaml, with interpolations (`${...}`)
unresolved, so that a value that follows from another setting is not a second difference. Settings that do not change
the result, such as the folder, the number of threads, the logger or the checks during training, are left out.

Two runs are compared in a setting only if they agree in the parts around it: only runs of the same model are compared
in `model.generator_optimizer.lr`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Settings = dict[str, Any]

SEEDS = ("seed", "sampling_seed")
NO_MODEL = "no model"  # for crystals from files
NOTHING = "–"  # for an unknown value

_FIRST = ("model", "data", "data.path", "checkpoint")
_TARGET = "_target_"

# Settings, and all below them, that do not change the result, or that follow from other settings.
_IGNORED = (
    "run_folder",
    "resume",
    "resume_on_other_data",
    "threads",
    "logger",
    "callbacks.progress_bar",
    "callbacks.sample_statistics",
    "callbacks.last_checkpoint",
    "callbacks.best_checkpoint",
    "trainer.log_every_n_steps",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "data.num_workers",
    "data.ingest.workers",
    "data.ingest.cache",
    "data.source.cache",
    "data.source.address",
    "data.source.name",
    "data.source.path",
)
_ABSENT = object()


def config_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a config of train.py, as it was saved."""
    settings = dict(_flat(config))
    source = config["data"].get("source") if isinstance(config.get("data"), Mapping) else None
    if isinstance(source, Mapping):
        settings["data"] = _data_set(source)
    settings.pop("data.source", None)
    if _last(settings.get("decode")) == "Decoder":
        settings.pop("decode")  # not recorded in `about`
    folder = config.get("run_folder")
    return {
        name: value
        for name, value in settings.items()
        if not _is_ignored(name) and not (folder and isinstance(value, str) and value.startswith(f"{folder}/"))
    }


def about_settings(about: Mapping[str, Any]) -> Settings:
    """Return the settings of a model, its data and its samples in the provenance of metrics.json."""
    settings: Settings = {"model": about.get("model", NO_MODEL)}
    source = about.get("data")
    if isinstance(source, Mapping):
        settings["data"] = _data_set(source)
        settings["data.path"] = source.get("path")
    for name, own in (("max_sites", "max_sites"), ("training_seed", "seed"), ("num_samples", "num_samples")):
        if name in about:
            settings[own] = about[name]
    if "seed" in about:
        settings["sampling_seed" if "training_seed" in about else "seed"] = about["seed"]
    for part, values in (("decode", about.get("decode")), ("model", about.get("overrides"))):
        if isinstance(values, Mapping):
            settings |= dict(_flat(values, f"{part}."))
    return settings


def differing(runs: Sequence[Settings], whole: Sequence[bool]) -> list[str]:
    """Return the names of the settings in which runs differ, the most important first and seeds last.

    Args:
        runs: settings of each run.
        whole: for each run, whether all its settings are known; otherwise a missing setting is not a difference.
    """
    names = list(dict.fromkeys(name for settings in runs for name in settings))
    found = [name for name in names if _differs(name, runs, whole)]
    if all(settings.get("sampling_seed") in (None, settings.get("seed")) for settings in runs):
        found = [name for name in found if name != "sampling_seed"]
    front = [name for name in _FIRST if name in found]
    seeds = [name for name in SEEDS if name in found]
    return front + [name for name in found if name not in front and name not in seeds] + seeds


def short_names(names: Sequence[str], all_names: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Return the shortest unique end of each name, of two parts or more.

    Args:
        names: names to shorten.
        all_names: names of all settings of all runs.
        taken: names of other columns; a setting with such a name is shown as `config.<name>`.
    """
    ends: Counter[str] = Counter()
    for name in set(all_names) | set(names):
        parts = name.split(".")
        ends.update({".".join(parts[start:]) for start in range(len(parts))})
    short = {}
    for name in names:
        parts = name.split(".")
        candidates = [".".join(parts[start:]) for start in range(max(len(parts) - 2, 0), -1, -1)]
        end = next((end for end in candidates if ends[end] == 1), name)
        short[name] = f"config.{end}" if end in taken else end
    return short


def shown_values(values: Sequence[Any]) -> dict[str, str]:
    """Return the displayed text of each value of a setting: a class without its module, unless two modules have it."""
    texts = {str(value) for value in values}
    classes = defaultdict(set)
    for text in texts:
        if _is_class(text):
            classes[_last(text)].add(text)
    return {text: _last(text) if len(classes[_last(text)]) == 1 else text for text in texts}


def comparable(value: Any) -> str:
    """Return a text that is equal for equal values: 1 and 1.0 are equal, True and 1 are not."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values under dotted names; lists of plain values are values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key == _TARGET and prefix:
            yield prefix[:-1], value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
            yield from _flat({str(place): part for place, part in enumerate(value)}, f"{name}.")
        else:
            yield name, value


def _data_set(source: Mapping[str, Any]) -> str:
    """Return the name of a data set: the `name` of the source, or its class."""
    return str(source.get("name") or source.get(_TARGET) or "unknown")


def _differs(name: str, runs: Sequence[Settings], whole: Sequence[bool]) -> bool:
    """Return whether two runs that agree in the parts around a setting differ in it."""
    parts = name.split(".")
    around = [".".join(parts[:end]) for end in range(1, len(parts))]
    values: dict[tuple[str, ...], set[str]] = defaultdict(set)
    lacking: dict[tuple[str, ...], bool] = defaultdict(bool)
    having: dict[tuple[str, ...], bool] = defaultdict(bool)
    for settings, is_whole in zip(runs, whole, strict=True):
        place = tuple(comparable(settings.get(part, "")) for part in around)
        if name in settings:
            values[place].add(comparable(settings[name]))
            having[place] |= is_whole
        else:
            lacking[place] |= is_whole
    return any(len(found) > 1 or (having[place] and lacking[place]) for place, found in values.items())


def _is_ignored(name: str) -> bool:
    """Return whether a setting, or a part around it, is left out."""
    return any(name == ignored or name.startswith(f"{ignored}.") for ignored in _IGNORED)


def _is_class(text: str) -> bool:
    """Return whether a text looks like the dotted path of a class or a function."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def _last(value: Any) -> str:
    """Return the last part of a dotted path, or the text of any other value."""
    text = str(value)
    return text.rsplit(".", maxsplit=1)[-1] if _is_class(text) else text
