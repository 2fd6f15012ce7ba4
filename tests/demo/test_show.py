"""The demo's table."""

from mixtune.artifacts.grid import Candidate, GridReport
from mixtune.demo.show import format_grid

from ..comparisons import make_axis, make_comparison, make_mix


def test_a_mix_whose_training_failed_stands_in_the_table_with_its_reason() -> None:
    failed = make_comparison("failed", reason="step 3: the loss is not finite", mix=make_mix(100))
    passed = make_comparison("pass", make_axis("customer", "pass", 0.5, base=0.1), mix=make_mix(75))
    candidates = (Candidate(name="100 %", comparison=failed), Candidate(name="75 %", comparison=passed))
    grid = GridReport(verdict="pass", reason="Take 75 %.", recommended=None, candidates=candidates)
    lines = format_grid(grid).splitlines()
    assert lines[3].startswith("customer only") and lines[3].endswith("failed: step 3: the loss is not finite")
    assert lines[4].split() == ["75", "%", "customer", "0.500", "pass"]
