import subprocess
import sys
from pathlib import Path

from crystens.cif.write import write_cif
from crystens.crystal import Crystal

_READ_IN_JOBLIB = """
import sys
from joblib import Parallel, delayed
from crystens.formats.cif_folder import CifFolder
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.sources.limits import Limits

def read(path, cache):
    return len(open_store(CifFolder(path), Limits(), IngestOptions(workers=1, cache=cache)))

if __name__ == "__main__":
    jobs = (delayed(read)(sys.argv[1], f"{sys.argv[2]}/{job}") for job in range(2))
    print(Parallel(n_jobs=2, backend="loky")(jobs))
"""


def test_a_worker_of_joblib_can_read_data_by_processes_of_its_own(tmp_path: Path, nacl: Crystal) -> None:
    # As jobs of a sweep do whose data was not read before.
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "nacl.cif").write_text(write_cif(nacl))
    script = tmp_path / "read.py"
    script.write_text(_READ_IN_JOBLIB)
    command = [sys.executable, str(script), str(tmp_path / "cifs"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[1, 1]", done.stderr
