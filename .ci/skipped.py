"""Print the tests that a run of pytest skipped, one a line, from its JUnit report: `skipped.py REPORT`.

With the extras installed these are what is left to run, and no test runs twice.
"""

import sys
import xml.etree.ElementTree as ElementTree

for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    if case.find("skipped") is not None:
        module, name = case.get("classname") or "", case.get("name") or ""
        # A module that is skipped as a whole is a case without a class.
        file = f"{(module or name).replace('.', '/')}.py"
        print(f"{file}::{name}" if module else file)
