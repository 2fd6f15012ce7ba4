"""Arguments of a compiled pipeline: `key=value` texts, checked against the YAML before anything runs.

Neither KFP's client nor its command line checks names or types; a wrong one would fail late, or not at all.
"""

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from mixtune.commands.argument_places import Arguments, did_you_mean, resolve_places
from mixtune.errors import ConfigError, reason
from mixtune.mixes import read_mix, with_mix
from mixtune.settings.foreign import JsonObject
from mixtune.settings.from_dict import find_option
from mixtune.settings.inference import EvaluateSettings
from mixtune.settings.mix import MixSettings, TokenSettings
from mixtune.settings.sanitize import SanitizeSettings
from mixtune.settings.train import TrainSettings

KINDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}

OPTIONS = (
    ("train_options", TrainSettings),
    ("mix_options", TokenSettings),  # which stand among those of the mix
    ("mix_options", MixSettings),
    ("sanitize_options", SanitizeSettings),
    ("evaluate_options", EvaluateSettings),
)
"""Parameters of options, with what they hold."""
OF_A_TRAINING = ("customer_data_percent", "max_steps")
"""What `restore`, which needs a `model_uri`, means otherwise than pipelines that tune."""

Definitions: TypeAlias = Mapping[str, JsonObject]
"""Parameters of a compiled pipeline, as its YAML has them."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a group of commands adds its own."""


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """Add where the runs of this machine lie."""
    parser.add_argument("--work-dir", default="mixtune-work", help="(default: %(default)s)")


def add_pipeline_arguments(parser: argparse.ArgumentParser, *, needed: bool = True, runs: bool = False) -> None:
    """Add a pipeline and its `key=value` arguments to a command.

    `needed`: whether it has to be named; `runs`: whether a run here may be named in its place.
    """
    if runs:
        add_work_dir(parser)
    parser.add_argument(
        "pipeline",
        nargs=None if needed else "?",
        default="",
        help="a compiled pipeline, or the name of a pipeline or component that mixtune ships (`mixtune list`)"
        + (", or a run here" if runs else ""),
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="key=value", help="its parameters; @file.json for lists and objects"
    )
    parser.add_argument(
        "--arguments",
        dest="arguments_file",
        default="",
        metavar="FILE",
        help="JSON object of parameters; relative paths in it lie beside it, or here",
    )
    parser.add_argument(
        "--mix", default="", metavar="FILE", help="a Nova mix; its percents take the place of the arguments'"
    )


def package_files(folder: str) -> list[Path]:
    """Return the YAML files of the pipelines (`compiled`) or, for an empty folder, of all components, by name."""
    package = Path(str(resources.files("mixtune")))
    files = [path for path in package.glob("*/*.yaml") if (path.parent.name == "compiled") == (folder == "compiled")]
    return sorted(files, key=lambda path: path.stem)


def find_pipeline(name: str) -> Path:
    """Return the YAML file of a pipeline: a path, or the name of a pipeline or component that mixtune ships.

    Raises:
        ConfigError: Neither.
    """
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    pipelines, components = package_files("compiled"), package_files("")
    if shipped := [path for path in (*pipelines, *components) if path.stem == name]:
        return shipped[0]
    names = [path.stem for path in (*pipelines, *components)]
    near = did_you_mean(name, names) or f"there are {', '.join(path.stem for path in pipelines)}"
    way = f"{near}; `mixtune list` shows all pipelines and components, `mixtune runs` the runs here"
    raise ConfigError(f"{name}: no such file, and mixtune ships nothing of that name; {way}")


def read_spec(path: Path) -> JsonObject:
    """Return a compiled pipeline's specification: the first document of its YAML."""
    return dict(_first_document(path.read_text()))


@lru_cache(maxsize=8)  # a command asks several times
def _first_document(text: str) -> JsonObject:
    return dict(next(yaml.load_all(text, yaml.CSafeLoader)))


def read_definitions(path: Path) -> Definitions:
    """The parameters of a compiled pipeline: `parameterType`, `isOptional`, `defaultValue`, `description`.

    Raises:
        ConfigError: The file is no compiled pipeline.
    """
    try:
        spec = read_spec(path)
        return dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, StopIteration) as error:
        way = "compile it (kfp dsl compile --py PIPELINE.py --output PIPELINE.yaml), or name one of ours"
        raise ConfigError(f"{path}: not a compiled pipeline; {way}") from error


def read_options(
    options: argparse.Namespace, path: Path, earlier: Arguments | None = None, *, complete: bool = True
) -> Arguments:
    """Return the arguments that a command line gives, by `add_pipeline_arguments`; `complete`: none may be missing.

    Raises:
        ConfigError: As `read_arguments`, `resolve_places` and `read_mix` do.
    """
    arguments = read_arguments(path, options.arguments, options.arguments_file, earlier, complete=complete)
    if options.mix:
        arguments = with_mix(arguments, read_mix(options.mix))
        check_arguments(path, arguments, complete=complete)
    return resolve_places(arguments, Path(options.arguments_file).expanduser().parent)


def read_arguments(
    path: Path, texts: Iterable[str], file: str = "", earlier: Arguments | None = None, *, complete: bool = True
) -> Arguments:
    """Turn `key=value` texts into a pipeline's arguments.

    A value is text, a number, `true` or `false`, JSON for lists and objects, or `@file.json`. One entry of an object is
    written `train_options.lora_rank=8`. A file holds a JSON object of arguments, which the texts override; both
    override those of an earlier run. What a file or run says for other pipelines alone is left out by name.

    Raises:
        ConfigError: An unknown or doubled name, a value of the wrong type, or a required one that is missing.
    """
    definitions, texts = read_definitions(path), list(texts)
    arguments: Arguments = {}
    entries: list[tuple[str, list[str], object]] = []
    places: set[str] = set()
    for text in texts:
        place, sign, value = text.partition("=")
        name, *keys = place.split(".")
        if not sign:
            near = f"; a file of them is given as --arguments {text}" if text.endswith(".json") else ""
            raise ConfigError(f"{text!r}: an argument is written key=value{near}")
        if name not in definitions:
            _check_names(path, [part.partition("=")[0].split(".")[0] for part in texts], definitions)
        if place in places:
            raise ConfigError(f"{place} is given twice")
        places.add(place)
        kind = definitions[name]["parameterType"]
        if keys and kind == "STRUCT":
            entries.append((name, keys, read_entry(value)))
        elif keys:
            raise ConfigError(f"{name} is {KINDS[kind]}, and has no {keys[0]!r}")
        else:
            arguments[name] = _read_value(name, value, kind)
    before = _taken_over(path, earlier or {}, "")
    if file:
        before |= _taken_over(path, _read_file(file), file)
    before = {name: _as_declared(value, definitions.get(name, {})) for name, value in before.items()}
    arguments = {**before, **arguments}
    for name, keys, entry in entries:
        arguments[name] = _with_entry(name, arguments.get(name), keys, entry)
    check_arguments(path, arguments, complete=complete)
    return arguments


def _required_artifacts(path: Path) -> list[str]:
    """Return the files that a component takes from other steps, which a run of it alone has not."""
    artifacts = read_spec(path)["root"].get("inputDefinitions", {}).get("artifacts", {})
    return [name for name, item in artifacts.items() if not item.get("isOptional")]


def with_defaults(path: Path, arguments: Arguments) -> Arguments:
    """Return a pipeline's arguments with its defaults for what is not given; what has none stays out."""
    definitions = read_definitions(path).items()
    return {**{name: item["defaultValue"] for name, item in definitions if "defaultValue" in item}, **arguments}


def check_arguments(path: Path, arguments: Arguments, *, complete: bool = True) -> None:
    """Check that arguments fit a compiled pipeline: names, types, and with `complete` nothing required missing.

    Raises:
        ConfigError: They do not; every unknown name is listed.
    """
    definitions = read_definitions(path)
    _check_names(path, arguments, definitions)
    for name, value in arguments.items():
        kind = definitions[name]["parameterType"]
        if not _fits(value, kind):
            raise ConfigError(f"{name} is {KINDS[kind]}; got {value!r}")
    missing = [name for name, item in definitions.items() if not item.get("isOptional") and name not in arguments]
    if complete and (artifacts := _required_artifacts(path)):
        raise ConfigError(
            f"{path.stem} takes what other steps made ({', '.join(artifacts)}); call it in a pipeline, as in examples/"
        )
    if missing and complete:
        raise ConfigError(f"{path.stem} needs {', '.join(f'{name}=...' for name in missing)}")
    _check_amounts(arguments)


def _taken_over(path: Path, arguments: Arguments, source: str) -> Arguments:
    """Return what a pipeline takes of arguments that may be another one's, and say what it leaves out by name.

    A file's names that none of our pipelines has stay in, and one that is a slip of a name here: they are refused.
    """
    definitions = read_definitions(path)
    others = set(arguments) - set(definitions)
    if others and source:
        others &= {name for file in package_files("compiled") for name in read_definitions(file)}
        others -= {name for name in others if _is_slip(name, arguments[name], definitions)}
    if ("model_uri" in arguments) != ("model_uri" in definitions):
        others |= set(arguments) & set(OF_A_TRAINING)
    if others:
        place, names = source or "the earlier run", ", ".join(sorted(others))
        print(f"{path.stem} leaves out what {place} says for other pipelines: {names}", file=sys.stderr)
    return {name: value for name, value in arguments.items() if name not in others}


def _is_slip(name: str, value: object, definitions: Definitions) -> bool:
    near = difflib.get_close_matches(name, definitions, n=1, cutoff=0.9)
    return bool(near) and _fits(value, definitions[near[0]]["parameterType"])


def _check_names(path: Path, texts: Iterable[str], definitions: Definitions) -> None:
    names = list(texts)
    unknown = [name for name in names if name not in definitions]
    listed = f"there are {', '.join(sorted(definitions))}"
    if len(unknown) == 1:
        near = _option_named(unknown[0], definitions) or did_you_mean(unknown[0], definitions)
        raise ConfigError(f"{path.stem} has no parameter {unknown[0]!r}; {near or listed}")
    if unknown:
        others = [name for name in definitions if name not in names]
        hints = [f"{name!r} ({near})" if (near := did_you_mean(name, others)) else repr(name) for name in unknown]
        raise ConfigError(f"{path.stem} has no parameters {', '.join(hints)}; {listed}")


def _option_named(name: str, definitions: Definitions) -> str:
    """Return how an option is written whose own name was taken for a parameter's; empty where there is none."""
    places = (f"{option}.{place}" for option, kind in OPTIONS for place in find_option(kind, name))
    ways = [repr(place) for place in places if place.partition(".")[0] in definitions and ".tokens." not in place]
    return f"write {' or '.join(ways)}" if ways else ""


def _check_amounts(arguments: Arguments) -> None:
    """Check shares and CPUs, before anything runs.

    Raises:
        ConfigError: A customer share is no percentage, a strength of the dial no number, or `data_cpu` no quantity.
    """
    cpus = arguments.get("data_cpu", "1")
    if not re.fullmatch(r"\d+(\.\d+)?|\d+m", cpus):
        raise ConfigError(f"data_cpu is a number of CPUs as Kubernetes writes it, such as 2 or 500m; got {cpus!r}")
    for name, limit in (("customer_data_percents", 100), ("customer_data_percent", 100), ("dial", 1)):
        values = arguments.get(name) or []
        for value in values if isinstance(values, list) else [values]:
            if type(value) not in (int, float) or not 0 <= value <= limit:
                raise ConfigError(f"{name} is 0 to {limit}; got {value!r}")


def _as_declared(value: object, definition: Mapping[str, object]) -> object:
    """Return a number in its parameter's type: KFP gives 5.0 for 5, a file may say 75 for 75.0, or 4 for a text."""
    kind = definition.get("parameterType")
    if kind == "STRING" and type(value) is int:
        return str(value)
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if kind == "NUMBER_DOUBLE" and type(value) is int else value


def _read_file(file: str) -> JsonObject:
    try:
        value = _parse(Path(file).expanduser().read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"--arguments {file}: no such file; name one with a JSON object of parameters") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"--arguments {file}: cannot be read as JSON ({reason(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--arguments {file}: a JSON object is needed; got a {type(value).__name__}")
    return value


def _read_value(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    if kind in ("LIST", "STRUCT") and text.startswith("@"):
        try:
            text = Path(text[1:]).expanduser().read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name}: {text[1:]} cannot be read ({reason(error)})") from error
    try:
        value = _parse(text)
    except ValueError as error:
        why = f" ({error})" if kind in ("LIST", "STRUCT") else ""
        raise ConfigError(f"{name} is {KINDS[kind]}; got {text!r}{why}") from error
    return float(value) if kind == "NUMBER_DOUBLE" and type(value) is int else value


def _parse(text: str) -> Any:
    """Return what a text says as JSON, which has no NaN and no Infinity; a ValueError where it is none."""

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number if len(number) < 20 else 'a number of too many digits'} is no number")
        return float(number)

    def whole(number: str) -> int:
        finite(number)
        return int(number)

    return json.loads(text, parse_constant=finite, parse_float=finite, parse_int=whole)


def read_entry(text: str) -> object:
    """Return an entry of an object: JSON, else the text itself."""
    try:
        return _parse(text)
    except ValueError:
        return text


def _with_entry(name: str, value: object, keys: list[str], entry: object) -> object:
    """Return an object with one entry set, however deep; None: there is no object yet."""
    if not keys:
        return entry
    if isinstance(value, str) and name.startswith("benchmarks."):
        value = {"uri": value}  # for which a text alone stands
    if not isinstance(value, dict | None):
        raise ConfigError(f"{name} is {value!r}, and has no {keys[0]!r}")
    inner = value or {}
    return {**inner, keys[0]: _with_entry(f"{name}.{keys[0]}", inner.get(keys[0]), keys[1:], entry)}


def _fits(value: object, kind: str) -> bool:
    return {
        "STRING": lambda: isinstance(value, str),
        "NUMBER_INTEGER": lambda: type(value) is int,
        "NUMBER_DOUBLE": lambda: type(value) in (int, float),
        "BOOLEAN": lambda: isinstance(value, bool),
        "LIST": lambda: isinstance(value, list),
        "STRUCT": lambda: isinstance(value, dict),
    }[kind]()
