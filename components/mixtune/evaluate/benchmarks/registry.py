"""All benchmark forms: the `FORM` of every file in this folder."""

import pkgutil
from importlib import import_module
from pathlib import Path

from mixtune.evaluate.benchmarks.form import AnyForm


def find_forms() -> dict[str, AnyForm]:
    """Return the forms of this folder by name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = [import_module(f"{__package__}.{name}") for name in names if name != "registry"]
    return {module.FORM.name: module.FORM for module in modules if hasattr(module, "FORM")}


FORMS = find_forms()
BENCHMARK_FORMS = tuple(name for name, form in FORMS.items() if form.is_benchmark)
"""Those that users name in `benchmarks`."""
