"""The demo's table."""

from mixtune.demo.show import table


def test_a_mix_whose_training_failed_stands_in_the_table_with_its_reason() -> None:
    axis = {
        "axis": "customer", "base": 0.1, "candidate": 0.5, "difference": 0.4, "lower": 0.3, "upper": 0.5,
        "relative": False, "verdict": "pass",
    }  # fmt: skip
    failed = {"percent": 100.0, "axes": {}, "verdict": "failed", "reason": "step 3: the loss is not finite"}
    lines = table({"points": [failed, {"percent": 75.0, "axes": {"customer": axis}, "verdict": "pass"}]}).splitlines()
    assert lines[3].startswith("customer only") and lines[3].endswith("failed: step 3: the loss is not finite")
    assert lines[4].split() == ["75", "%", "customer", "0.500", "pass"]
