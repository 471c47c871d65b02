"""Ingest: beside a plain loop of pymatgen, at the size of the paper's data set, and as input of training.

python experiments/ingest/run.py compare DIR/mp_3dsc        seconds, memory, and all differences of the crystals;
                                                            --peer FOLDER adds a clone of the paper's public code
python experiments/ingest/run.py many DIR/mp_3dsc           53,856 CIF files: rate, size, time to open, memory
python experiments/ingest/run.py throughput DIR/mp_3dsc     crystals a second into training, against a step of the WGAN
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 53_856  # crystals of the paper's data set
SYMPREC = 0.01
WGAN_BATCH = 16


class Watch(threading.Thread):
    """Watches this process and its descendants: CPU seconds, and the peak of resident memory, MiB.

    It reads /proc every 50 ms, and does not count its own time; only on Linux. `resource.RUSAGE_CHILDREN` does not
    count worker processes, because they are children of a server.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.cpu: dict[int, float] = {}
        self.own_peak = self.others_peak = self.largest_other = self.looking = 0.0
        self.begun = time.perf_counter()
        self.before = self._look()[os.getpid()][0]
        self.start()

    def run(self) -> None:
        """Watch until `result` is called."""
        while not self.ended.wait(0.05):
            self._note()
            self.looking = time.thread_time()

    def result(self) -> dict[str, float]:
        """Stop watching and return seconds and memory."""
        seconds = time.perf_counter() - self.begun
        self.ended.set()
        self.join()
        self._note()
        return {
            "seconds": seconds,
            "cpu_seconds": sum(self.cpu.values()) - self.before - self.looking,
            "peak_mib": self.own_peak,
            "peak_of_all_workers_mib": self.others_peak,
            "peak_of_a_worker_mib": self.largest_other,
        }

    def _note(self) -> None:
        seen = self._look()
        self.cpu |= {pid: seconds for pid, (seconds, _) in seen.items()}
        others = [memory for pid, (_, memory) in seen.items() if pid != os.getpid()]
        self.own_peak = max(self.own_peak, seen[os.getpid()][1])
        self.others_peak = max(self.others_peak, sum(others))
        self.largest_other = max(self.largest_other, max(others, default=0.0))

    def _look(self) -> dict[int, tuple[float, float]]:
        """Return CPU seconds and resident MiB of this process and its descendants."""
        parents, found = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
            found[pid] = (ticks / os.sysconf("SC_CLK_TCK"), pages * resource.getpagesize() / 2**20)

        def is_ours(pid: int) -> bool:
            while pid > 1:
                if pid == os.getpid():
                    return True
                pid = parents.get(pid, 0)
            return False

        return {pid: values for pid, values in found.items() if is_ours(pid)}


def ours(source: str, workers: int, cache: str, max_sites: int | None = None) -> dict[str, Any]:
    """Ingest a source in this process; return the cost of it, and of opening the store again.

    Imports of this process are not counted, as for the other readers. Imports of the workers are counted.
    """
    import pandas  # noqa: F401  (pyarrow imports it when it makes the first array)

    from crystens.ingest.ingest import IngestOptions, open_store
    from crystens.ingest.kinds import open_source
    from crystens.sources.limits import Limits

    watch = Watch()
    kind = "cif_folder" if max_sites else "mp_3dsc"
    limits, options = Limits(max_sites), IngestOptions(workers=workers, cache=cache)
    store = open_store(open_source(source, kind), limits, options)
    result = watch.result()
    start = time.perf_counter()
    open_store(open_source(source, kind), limits, options)
    again = time.perf_counter() - start
    return {
        "crystals": len(store),
        "rejects": store.num_rejects,
        **result,
        "again_seconds": again,
        "bytes_a_crystal": store.nbytes / len(store),
        "bytes_on_disk": sum(path.stat().st_size for path in Path(store.folder or ".").iterdir()),
    }


def plain(source: str, out: str) -> dict[str, Any]:
    """Read the CIFs of mp_3dsc by a loop of pymatgen's parser and space group analyzer, and write the crystals."""
    from pymatgen.io.cif import CifParser
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    warnings.filterwarnings("ignore")
    texts = []
    with tarfile.open(Path(source) / "cifs.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".cif"):
                texts.append((Path(member.name).stem, file.read().decode()))
    watch = Watch()
    read = []
    for name, text in texts:
        structure = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
        group = SpacegroupAnalyzer(structure, symprec=SYMPREC).get_space_group_number()
        read.append((name, structure, group))
    result = watch.result()
    crystals = [
        {
            "id": name,
            "parameters": list(structure.lattice.parameters),
            "numbers": [site.specie.Z for site in structure],
            "coordinates": structure.frac_coords.tolist(),
            "space_group": group,
        }
        for name, structure, group in read
    ]
    Path(out).write_text(json.dumps(crystals))
    return {"crystals": len(read), **result}


def peer(source: str, folder: str) -> dict[str, Any]:
    """Read the CIFs of mp_3dsc by the paper's public code, in a clone that the user has."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "speed"))
    from peer import Peer

    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as files:
        with tarfile.open(Path(source) / "cifs.tar.gz") as archive:
            archive.extractall(files, filter="data")
        paths = sorted(Path(files).rglob("*.cif"))
        theirs = Peer(Path(folder))
        watch = Watch()
        read = sum(theirs.read(path) for path in paths)
        return {"files": len(paths), "crystals": read, **watch.result()}


def limits(source: str) -> dict[str, Any]:
    """Return lower limits of the time: reading the bytes, and moyopy's search alone (symprec 0.01)."""
    from crystens.ingest.kinds import open_source
    from crystens.sources.limits import Limits
    from crystens.sources.source import read_all
    from crystens.symmetry.space_groups import space_group_number

    watch = Watch()
    with tarfile.open(Path(source) / "cifs.tar.gz") as archive:
        size = sum(len(file.read()) for member in archive if (file := archive.extractfile(member)) is not None)
    found = {"bytes": size, "reading the bytes": watch.result()["cpu_seconds"]}
    crystals = [entry.crystal for entry in read_all(open_source(source), Limits())[0]]
    watch = Watch()
    for crystal in crystals:
        space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, SYMPREC)
    return {**found, "moyopy alone": watch.result()["cpu_seconds"]}


def differences(source: str, cache: str, other: str) -> dict[str, Any]:
    """Compare every crystal of a store with the crystal of the plain loop."""
    from crystens.ingest.ingest import IngestOptions, open_store
    from crystens.ingest.kinds import open_source
    from crystens.sources.limits import Limits

    store = open_store(open_source(source), Limits(), IngestOptions(workers=2, cache=cache))
    rows = {name: row for row, name in enumerate(store.column("entry"))}
    told: dict[str, list[Any]] = {"missing": [], "lattice": [], "species": [], "coordinates": [], "space_group": []}
    worst = 0.0
    for crystal in json.loads(Path(other).read_text()):
        name = crystal["id"]
        if name not in rows:
            told["missing"].append(name)
            continue
        mine = store[rows[name]]
        parameters = np.concatenate([mine.lengths, mine.angles])
        if not np.allclose(parameters, crystal["parameters"], rtol=1e-6):
            told["lattice"].append(name)
        if sorted(mine.numbers.tolist()) != sorted(crystal["numbers"]):
            told["species"].append(name)
            continue
        # Each site is compared with the nearest one of its element, because the orders differ.
        steps = mine.coordinates[:, None] - np.array(crystal["coordinates"])[None]
        distance = np.abs(steps - np.round(steps)).max(axis=2)
        distance[mine.numbers[:, None] != np.array(crystal["numbers"])[None]] = np.inf
        nearest = distance.argmin(axis=1)
        worst = max(worst, float(distance.min(axis=1).max()))
        if distance.min(axis=1).max() > 1e-6 or len(set(nearest.tolist())) != len(nearest):
            told["coordinates"].append(name)
        if mine.space_group != crystal["space_group"]:
            told["space_group"].append([name, mine.space_group, crystal["space_group"]])
    return {"differences": told, "largest_coordinate_difference": worst}


def write_many(source: str, folder: Path, count: int) -> None:
    """Write `count` CIF files: the crystals of a source in turn, each time with sites moved a little."""
    from crystens.cif.write import write_cif
    from crystens.crystal import Crystal
    from crystens.ingest.kinds import open_source
    from crystens.sources.limits import Limits
    from crystens.sources.source import read_all

    crystals = [entry.crystal for entry in read_all(open_source(source), Limits(max_sites=52))[0]]
    rng = np.random.default_rng(0)
    for k in range(count):
        crystal = crystals[k % len(crystals)]
        moved = Crystal(
            crystal.lengths * (1 + 0.01 * rng.standard_normal()),
            crystal.angles,
            crystal.space_group,
            crystal.numbers,
            crystal.coordinates + rng.random(3),
        )
        path = folder / f"{k // 1000:03d}" / f"{k:06d}.cif"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(write_cif(moved))


def _training_memory(source: str, cache: str) -> dict[str, Any]:
    """Return the resident memory of a process that trains on a store, step by step."""
    import torch

    from crystens.data.datamodule import CrysTensDataModule
    from crystens.ingest.ingest import IngestOptions
    from crystens.ingest.kinds import open_source
    from crystens.scaling import Scaling

    torch.set_num_threads(1)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    before = resident()
    module = CrysTensDataModule(
        open_source(source), 52, Scaling.fit, batch_size=256, ingest=IngestOptions(workers=2, cache=cache)
    )
    start = time.perf_counter()
    module.setup()
    setup = time.perf_counter() - start
    after_setup = resident()
    for batch in module.train_dataloader():
        module.encode(batch)
    return {
        "imports_mib": before,
        "after_setup_mib": after_setup,
        "after_an_epoch_mib": resident(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "setup_seconds": setup,
    }


def _throughput(source: str, cache: str) -> dict[str, Any]:
    """Time loading, augmenting and encoding of batches of 256 at side 64, and a step of the paper's WGAN."""
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    import crystens.training.tasks  # noqa: F401  (its resolvers)
    from crystens.data.augmentation import Augmentation
    from crystens.data.datamodule import CrysTensDataModule
    from crystens.ingest.ingest import IngestOptions
    from crystens.ingest.kinds import open_source
    from crystens.scaling import Scaling

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module = CrysTensDataModule(
        open_source(source), 52, Scaling.fit, batch_size=256, ingest=IngestOptions(workers=2, cache=cache)
    )
    everything = Augmentation(origin_shift=True, permute_like_sites=True, relabel_axes=True)

    def seconds(work: Any, batches: int = 40) -> float:
        done, start = 0, time.perf_counter()
        while done < batches:
            for batch in module.train_dataloader():
                work(batch)
                done += 1
        return (time.perf_counter() - start) / done

    module.setup()
    loaded = seconds(lambda batch: None)
    encoded = seconds(module.encode)
    augmented = seconds(lambda batch: module.encode(everything(batch)))
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        model = instantiate(compose("train", overrides=["model=paper_wgan"]).model, _convert_="all")
    # A lower limit of the cost of a step: the loss of the critic and its gradient, without the gradient penalty. On a
    # part of the batch, because the whole batch does not fit into the memory of this machine.
    images = module.encode(next(iter(module.train_dataloader())))[:WGAN_BATCH]
    steps = []
    for _ in range(3):
        start = time.perf_counter()
        fakes = model.generator(torch.randn(len(images), model.generator.latent_dim)).detach()
        (model.critic(fakes).mean() - model.critic(images).mean()).backward()
        steps.append(time.perf_counter() - start)
    return {
        "batch": 256,
        "load_ms": loaded * 1e3,
        "load_encode_ms": encoded * 1e3,
        "load_augment_encode_ms": augmented * 1e3,
        "crystals_a_second": 256 / encoded,
        "wgan_batch": WGAN_BATCH,
        "wgan_critic_step_without_penalty_ms": min(steps) * 1e3,
        "wgan_crystals_a_second_at_most": WGAN_BATCH / min(steps),
    }


def _run(*arguments: str) -> dict[str, Any]:
    """Run one part in its own process, to measure its memory alone, and return its output."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run one of the parts and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", help="compare, many, throughput; or one of their parts alone")
    parser.add_argument("source", help="folder of mp_3dsc")
    parser.add_argument("more", nargs="*")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--peer", metavar="FOLDER", help="a clone of the paper's public repository, for compare")
    arguments = parser.parse_args()
    source, more = arguments.source, arguments.more
    single = {
        "ours": lambda: ours(source, int(more[0]), more[1], *map(int, more[2:])),
        "plain": lambda: plain(source, more[0]),
        "peer": lambda: peer(source, more[0]),
        "limits": lambda: limits(source),
        "differences": lambda: differences(source, *more),
        "memory": lambda: _training_memory(source, more[0]),
    }
    if arguments.part in single:
        print(json.dumps(single[arguments.part]()))
        return
    folder = Path(tempfile.mkdtemp())
    try:
        results: dict[str, Any] = {}
        if arguments.part == "compare":
            for turn in range(3):
                for workers in (1, 2):
                    name = f"{workers} workers, turn {turn}"
                    results[name] = _run("ours", source, str(workers), str(folder / f"{workers}-{turn}"))
                results[f"pymatgen, turn {turn}"] = _run("plain", source, str(folder / "plain.json"))
                if arguments.peer is not None:
                    results[f"peer, turn {turn}"] = _run("peer", source, arguments.peer)
            results["limits"] = _run("limits", source)
            results |= _run("differences", source, str(folder / "2-0"), str(folder / "plain.json"))
        elif arguments.part == "many":
            write_many(source, folder / "cifs", arguments.count)
            results["ingest"] = _run("ours", str(folder / "cifs"), "2", str(folder / "cache"), "52")
            results["training"] = _run("memory", str(folder / "cifs"), str(folder / "cache"))
        elif arguments.part == "throughput":
            results = _throughput(source, str(folder / "cache"))
        else:
            parser.error(f"no part {arguments.part!r}")
        print(json.dumps(results, indent=1))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
