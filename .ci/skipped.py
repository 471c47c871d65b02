"""Print the tests that a run of pytest skipped, one a line, from its JUnit report: `skipped.py REPORT`.

With the extras installed these are what is left to run, and no test runs twice. Run it in the folder of the run.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def test_id(module: str, name: str) -> str:
    """Return what pytest calls a test; its class in a report is its file, and its own class if it has one, by dots."""
    if not module:  # a module that is skipped as a whole
        module, name = name, ""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        file = Path(*parts[:end]).with_suffix(".py")
        if file.is_file():
            return "::".join([file.as_posix(), *parts[end:], *([name] if name else [])])
    sys.exit(f"no file of the skipped test {module} {name} in {Path.cwd()}")


for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    skipped = case.find("skipped")
    if skipped is not None and skipped.get("type") != "pytest.xfail":
        print(test_id(case.get("classname") or "", case.get("name") or ""))
