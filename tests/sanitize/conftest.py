"""Sanitizing into a folder by the component's parameters."""

from pathlib import Path
from typing import Any

from mixtune.artifacts.pools import PoolsManifest
from mixtune.sanitize.run import Outputs, read_parameters, run


def sanitize(folder: Path, **parameters: Any) -> PoolsManifest:
    """Sanitize into `pools`, `data`, `r.html` and `s.md` of a folder, with no test split unless one is asked for."""
    settings, inputs = read_parameters({"splits": {"test_ratio": 0}, **parameters})
    outputs = Outputs(
        json_path=str(folder / "pools"),
        data_uri=str(folder / "data"),
        html_path=str(folder / "r.html"),
        markdown_path=str(folder / "s.md"),
    )
    return run(settings, inputs, outputs)
