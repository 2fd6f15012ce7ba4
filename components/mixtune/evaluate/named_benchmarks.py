"""The benchmarks that a user names, with the form and the options of each."""

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import fields
from typing import Any, NamedTuple

from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.errors import ConfigError
from mixtune.evaluate.benchmarks import nll
from mixtune.evaluate.benchmarks.form import AnyForm
from mixtune.evaluate.registry import BENCHMARK_FORMS, FORMS
from mixtune.settings.from_dict import from_dict

_NAME = re.compile(r"^[A-Za-z][\w-]*$")


class Benchmark(NamedTuple):
    """A benchmark that a user names."""

    form: AnyForm
    options: Any
    """An instance of the form's options."""


def parse_benchmarks(benchmarks: Mapping[str, object]) -> dict[str, Benchmark]:
    """Return the benchmarks of a component's parameter: by axis, options and possibly a `form`, else the axis is one.

    Raises:
        ConfigError: A name that cannot be an axis's, no known form, or a wrong option.
    """
    parsed = {}
    for name, options in benchmarks.items():
        if not isinstance(options, dict):
            raise ConfigError(f"benchmarks: {name!r} is {options!r}; give its options, such as {{'uri': ...}}")
        if name in (CUSTOMER_AXIS, nll.AXIS) or not _NAME.match(name):
            way = f"use letters, digits, - and _, but not {CUSTOMER_AXIS} or {nll.AXIS}"
            raise ConfigError(f"benchmarks: {name!r} cannot name a benchmark; {way}")
        values = {"form": name, **options}
        form = FORMS.get(str(values.pop("form")))
        if form is None or not form.is_benchmark:
            raise ConfigError(
                f"benchmarks: {name!r} has no known form; set its form to one of {', '.join(BENCHMARK_FORMS)}"
            )
        if named := {"split", "config", "subset"} & set(values):
            raise ConfigError(f"benchmark {name!r}: a {min(named)} is a file or folder of it; name that in uri")
        if "metric" in values and all(item.name != "metric" for item in fields(form.options)):
            form, metrics = copy(form), (form.metric, *form.other_metrics)
            form.metric = str(values.pop("metric"))
            if form.metric not in metrics:
                raise ConfigError(f"benchmark {name!r}: metric is one of {', '.join(metrics)}; got {form.metric!r}")
        parsed[name] = Benchmark(form, from_dict(form.options, values, f"benchmark {name!r}"))
    return parsed
