"""Seconds of training, sampling and judging, alone and beside one busy process, by the wait of threads; see README.md.

python experiments/threads/run.py measure OUT.jsonl --task train --ways default spin-1000 one-thread
python experiments/threads/run.py table OUT.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

# Environment variables and overrides of the command line; "ours" leaves the choice to crystens.
LIBRARY = {"GOMP_SPINCOUNT": "300000"}  # libgomp's default count if neither variable is set
WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "library": (LIBRARY, []),
    "ours": ({}, []),
    "spin-10000": ({"GOMP_SPINCOUNT": "10000"}, []),
    "spin-1000": ({"GOMP_SPINCOUNT": "1000"}, []),
    "spin-100": ({"GOMP_SPINCOUNT": "100"}, []),
    "passive": ({"OMP_WAIT_POLICY": "passive"}, []),
    "one-thread": (LIBRARY, ["threads=1"]),
}
TASKS = {
    "train": ["train.py", "num_samples=0", "callbacks.sample_statistics=null", "callbacks.best_checkpoint=null"],
    "sample": ["sample.py", "checkpoint=perov_5"],
    "judge": ["sample.py"],
}
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
_AUTOGROUP = Path("/proc/self/autogroup")  # Linux divides a core among sessions first
_STAMP = re.compile(r"^\[([\d-]+ [\d:]+),(\d+)\]\[[\w.]+\]\[\w+\] - (.*)$", re.M)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep cores busy by processes in sessions of their own with our priority, like a user in another terminal."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(count)
    ]
    if _AUTOGROUP.exists():
        priority = _AUTOGROUP.read_text().split()[-1]
        for process in processes:
            Path(f"/proc/{process.pid}/autogroup").write_text(priority)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _measure(task: str, way: str, busy: int, size: int, images: Path | None) -> dict[str, Any]:
    """Run a command once; return its seconds as a whole, and between its first and last line in the log."""
    variables, overrides = WAYS[way]
    environment = {name: value for name, value in os.environ.items() if name not in _WAITING} | variables
    command = [*TASKS[task], *overrides]
    command += [f"trainer.max_epochs={size}"] if task == "train" else []
    command += [f"num_samples={size}"] if task == "sample" else []
    command += [f"images={images}"] if task == "judge" else []
    with tempfile.TemporaryDirectory() as folder, _busy(busy):
        out = Path(folder) / "run"
        started = time.perf_counter()
        command = [sys.executable, *command, f"hydra.run.dir={out}"]
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        log = next(out.glob("*.log")).read_text()
    stamps = [
        (datetime.strptime(at, "%Y-%m-%d %H:%M:%S").timestamp() + int(ms) / 1000, text)
        for at, ms, text in _STAMP.findall(log)
    ]
    result: dict[str, Any] = {"task": task, "way": way, "busy": busy, "size": size, "seconds": round(seconds, 2)}
    if task == "train":
        (begun,) = (at for at, text in stamps if " trains " in text)
        (ended,) = (at for at, text in stamps if text.startswith("trained "))
        result["work"] = round(ended - begun, 2)
    return result


def _images(folder: Path, count: int) -> Path:
    """Return images to be judged, sampled once."""
    path = folder / f"judged-{count}" / "images.safetensors"
    if not path.exists():
        command = [*TASKS["sample"], f"num_samples={count}", f"hydra.run.dir={path.parent}"]
        subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=True, capture_output=True)
    return path


def _table(path: Path) -> str:
    """Return the measurements as a table: medians of seconds, and ratios."""
    found: dict[tuple[str, int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["task"], row["size"], row["way"]][row["busy"]].append(row.get("work", row["seconds"]))
    lines = ["| task | way | alone, s | beside one, s | beside / alone | beside / best alone | runs |"]
    lines.append("|---|---|---|---|---|---|---|")
    best: dict[tuple[str, int], float] = {}
    for (task, size, _), times in found.items():
        best[task, size] = min(best.get((task, size), float("inf")), statistics.median(times[0] or [float("inf")]))
    for (task, size, way), times in found.items():
        alone, beside = (statistics.median(times[busy]) if times[busy] else float("nan") for busy in (0, 1))
        spread = " ".join(
            f"{min(times[busy]):.1f}-{max(times[busy]):.1f}" if len(times[busy]) > 1 else "" for busy in (0, 1)
        )
        ratios = f"{beside / alone:.2f} | {beside / best[task, size]:.2f}"
        lines.append(f"| {task} {size} | {way} | {alone:.1f} | {beside:.1f} | {ratios} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("measure", "table"))
    parser.add_argument("out", type=Path, help="file of measurements, one line of JSON each; new ones are added")
    parser.add_argument("--task", choices=sorted(TASKS), default="train")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["library", "spin-1000", "one-thread"])
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1], help="numbers of busy processes beside")
    parser.add_argument("--size", type=int, default=20, help="epochs, or samples")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # otherwise the busy processes would outlive this one
    if options.step == "table":
        print(_table(options.out))
        return
    images = _images(options.out.resolve().parent, options.size) if options.task == "judge" else None
    for way in options.ways:
        for busy in options.busy:
            row = _measure(options.task, way, busy, options.size, images)
            print(json.dumps(row), flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
