"""What the parameters of the pipelines mean: said once, and shown by each of their pages."""

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path

TEXTS: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def documented(**own: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add to a pipeline's docstring what its parameters mean: what is said here, else in `TEXTS`."""

    def add(pipeline: Callable[..., object]) -> Callable[..., object]:
        texts = {**TEXTS, **own}
        lines = [f"    {name}: {texts[name]}" for name in inspect.signature(pipeline).parameters]
        pipeline.__doc__ = "\n".join([inspect.cleandoc(pipeline.__doc__ or ""), "", "Args:", *lines])
        return pipeline

    return add
