"""The same samples judged by one process, by Ray workers, and with one Ray worker killed; see README.md.

python experiments/sun/on_ray.py SAMPLES --real DATA/perov_5 --hull DATA/mp_52/val.csv.gz --out OUT [--cache DIR]

Each way computes everything again, in a cache of its own under OUT. Each cache starts as a copy of the folder
`--cache`, which may hold stores and the energies of elements, but no results of the samples.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

_WAYS = {"one process": ["--workers", "1"], "two Ray workers": ["--workers", "2", "--engine", "ray"]}
_KILLED = "two Ray workers, one killed"
_BUSY = 20.0  # seconds from the first busy worker to the kill


def main() -> None:
    """Judge, compare and print."""
    options = _arguments()
    ways = _WAYS | {_KILLED: _WAYS["two Ray workers"]}
    number = ["--reference-number", str(options.reference_number)]
    commands = {
        "evaluate": ["--protocol", "cdvae", "--reference", "perov_5", "--data-path", options.real, *number],
        "sun": ["--novel-against", options.real, "--hull-energies", options.hull],
    }
    for command in options.only or commands:
        for way in options.ways or ways:
            out = _folder(options.out, command, way)
            cache = out.with_name(f"{out.name}_cache")
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir(parents=True)
            if options.cache is not None:
                shutil.copytree(options.cache, cache, dirs_exist_ok=True)
            call = [sys.executable, "-m", f"crystens.{command}", options.samples, "--out", str(out)]
            killed, seconds = _run([*call, *commands[command], *ways[way]], cache, way == _KILLED)
            sys.stdout.write(f"{command}, {way}: {seconds:.0f} s; workers killed: {killed}\n")
            sys.stdout.flush()
        _compare(options.out, command, list(ways))


def _compare(folder: Path, command: str, ways: list[str]) -> None:
    """Print the number of rows of each finished way, and the number that differ from the first way."""
    tables = {way: _folder(folder, command, way) / "crystals.csv" for way in ways}
    rows = {way: path.read_bytes().splitlines()[1:] for way, path in tables.items() if path.exists()}
    first = next(iter(rows.values()))
    for way, lines in rows.items():
        differ = sum(one != other for one, other in zip(first, lines, strict=False)) + abs(len(first) - len(lines))
        sys.stdout.write(f"{command}, {way}: {len(lines)} rows, {differ} of them not as by {next(iter(rows))}\n")


def _folder(out: Path, command: str, way: str) -> Path:
    """Return the folder of the results of a command in one way."""
    return out / command / way.replace(",", "").replace(" ", "_")


def _run(call: list[str], cache: Path, kills: bool) -> tuple[int, float]:
    """Run a command, kill one of its Ray workers if `kills`; return the number of killed workers and the seconds."""
    start = time.perf_counter()
    quiet = {**os.environ, "CRYSTENS_CACHE": str(cache), "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(call, env=quiet, stdout=subprocess.DEVNULL)
    killed: list[int] = []
    if kills:
        threading.Thread(target=_kill_one, args=(process.pid, killed), daemon=True).start()
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(call)} ended with status {process.returncode}")
    return len(killed), time.perf_counter() - start


def _kill_one(parent: int, killed: list[int]) -> None:
    """Kill a Ray worker of a process, some seconds after the first one is busy."""
    since: float | None = None
    while psutil.pid_exists(parent) and not killed:
        time.sleep(0.5)
        for child in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "_Worker.run" not in " ".join(child.cmdline() or ()):
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since > _BUSY:
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
                    return


def _arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", metavar="SAMPLES", help="folder that sample.py wrote")
    parser.add_argument("--real", metavar="DIR", required=True, help="folder of perov_5")
    parser.add_argument("--hull", metavar="FILE", required=True, help="formation energies that make the hull")
    parser.add_argument("--reference-number", type=int, default=200, help="of real crystals; by default 200")
    parser.add_argument("--cache", metavar="DIR", help="folder of energies that each way begins with")
    parser.add_argument("--only", nargs="+", choices=("evaluate", "sun"), help="commands; by default both")
    ways = [*_WAYS, _KILLED]
    parser.add_argument("--ways", metavar="WAY", nargs="+", choices=ways, help=f"of {ways}; by default all")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
