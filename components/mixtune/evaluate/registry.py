"""All benchmark forms: the `FORM` of every file in the folder `benchmarks`."""

import pkgutil
from importlib import import_module

from mixtune.evaluate import benchmarks
from mixtune.evaluate.benchmarks.form import AnyForm


def find_forms() -> dict[str, AnyForm]:
    """Return the forms by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    modules = [import_module(f"{benchmarks.__name__}.{name}") for name in names]
    return {module.FORM.name: module.FORM for module in modules if hasattr(module, "FORM")}


FORMS = find_forms()
BENCHMARK_FORMS = tuple(name for name, form in FORMS.items() if form.is_benchmark)
"""Those that users name in `benchmarks`."""
