"""What `make check` leaves out: of the tests' times in a whole run, the longest, until the others fit.

    .venv/bin/pytest --junitxml times.xml ... && python benchmarks/test_times.py times.xml

All cases of a test count together, with what they set up.
"""

import argparse
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

SLOW_TESTS = Path(__file__).parents[1] / "tests" / "slow_tests.txt"
SECONDS = 60.0
"""Of one core that the tests of `make check` may take together; two cores need less than half of it again to begin."""


def seconds_by_test(junit: Path) -> dict[tuple[str, str], float]:
    """Return seconds by file and function."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for case in ET.parse(junit).iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        seconds[file, case.attrib["name"].partition("[")[0]] += float(case.attrib["time"])
    return seconds


def slow_tests(seconds: dict[tuple[str, str], float], limit: float) -> list[tuple[str, str]]:
    """Return the longest tests, without which the others stay within a limit in seconds."""
    rest = sum(seconds.values())
    slow = []
    for test, length in sorted(seconds.items(), key=lambda item: -item[1]):
        if rest <= limit:
            break
        slow.append(test)
        rest -= length
    return sorted(slow)


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("junit", type=Path)
    seconds = seconds_by_test(parser.parse_args().junit)
    slow = slow_tests(seconds, SECONDS)
    SLOW_TESTS.write_text("".join(f"{file}::{name}\n" for file, name in slow))
    left = sum(length for test, length in seconds.items() if test not in set(slow))
    print(f"{len(slow)} of {len(seconds)} tests are slow; the others take {left:.0f} of {sum(seconds.values()):.0f} s")


if __name__ == "__main__":
    main()
