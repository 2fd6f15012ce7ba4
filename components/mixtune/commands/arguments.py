"""Arguments of a compiled pipeline: `key=value` texts, checked against the YAML before anything runs.

Neither KFP's client nor its command line checks names or types; a wrong one would fail late, or not at all.
"""

import argparse
import difflib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from mixtune.errors import ConfigError
from mixtune.mixes import read_mix, with_mix

_KINDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}

ONE_RUN = ("customer_data_percent", "max_steps", "method")
"""Parameters of a pipeline that trains once: what it costs and whether it fits can be said ahead."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a group of commands adds its own."""


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a pipeline and its `key=value` arguments to a command."""
    parser.add_argument(
        "pipeline",
        help="a compiled pipeline, or the name of one that mixtune ships (finetune, or a component: rehearse)",
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="key=value", help="its parameters; @file.json for lists and objects"
    )
    parser.add_argument(
        "--arguments", dest="arguments_file", default="", metavar="FILE", help="JSON object of parameters"
    )
    parser.add_argument(
        "--mix", default="", metavar="FILE", help="a Nova mix; its percents take the place of the arguments'"
    )


def find_pipeline(name: str) -> Path:
    """The YAML file of a pipeline: a path, or the name of a pipeline or component that mixtune ships (`finetune`).

    Raises:
        ConfigError: Neither.
    """
    package = Path(str(resources.files("mixtune")))
    if Path(name).is_file():
        return Path(name)
    if compiled := [path for path in package.glob("*/*.yaml") if path.stem == name]:
        return compiled[0]
    names = ", ".join(sorted(path.stem for path in package.glob("compiled/*.yaml")))
    raise ConfigError(f"{name}: no such file, and mixtune ships no pipeline of that name; there are {names}")


def read_spec(path: Path) -> dict[str, Any]:
    """Return a compiled pipeline's specification: the first document of its YAML."""
    return dict(next(yaml.load_all(path.read_text(), yaml.CSafeLoader)))


def read_definitions(path: Path) -> dict[str, dict[str, Any]]:
    """The parameters of a compiled pipeline: `parameterType`, `isOptional`, `defaultValue`, `description`.

    Raises:
        ConfigError: The file is no compiled pipeline.
    """
    try:
        spec = read_spec(path)
        return dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise ConfigError(f"{path}: not a compiled pipeline; compile it with KFP, or name one of ours") from error


def read_options(options: argparse.Namespace, path: Path, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """The arguments that a command line gives, by `add_pipeline_arguments`.

    Raises:
        ConfigError: As `read_arguments` and `read_mix` do.
    """
    arguments = read_arguments(path, options.arguments, options.arguments_file, earlier)
    if options.mix:
        arguments = with_mix(arguments, read_mix(options.mix))
        check_arguments(path, arguments)
    return arguments


def read_arguments(
    path: Path, texts: Iterable[str], file: str = "", earlier: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Turn `key=value` texts into a pipeline's arguments.

    A value is text, a number, `true` or `false`, JSON for lists and objects, or `@file.json`. One entry of an object is
    written `train_options.lora_rank=8`. A file holds a JSON object of arguments, which the texts override; both
    override those of an earlier run.

    Raises:
        ConfigError: An unknown or doubled name, a value of the wrong type, or a required one that is missing.
    """
    definitions = read_definitions(path)
    arguments: dict[str, Any] = {}
    entries: list[tuple[str, list[str], Any]] = []
    for text in texts:
        name, sign, value = text.partition("=")
        name, *keys = name.split(".")
        if not sign:
            raise ConfigError(f"{text!r}: an argument is written key=value")
        if name not in definitions:
            raise ConfigError(f"{path.stem} has no parameter {name!r}; {_nearest(name, definitions)}")
        kind = definitions[name]["parameterType"]
        if keys and kind == "STRUCT":
            entries.append((name, keys, _read_entry(value)))
        elif keys:
            raise ConfigError(f"{name} is {_KINDS[kind]}, and has no {keys[0]!r}")
        elif name in arguments:
            raise ConfigError(f"{name} is given twice")
        else:
            arguments[name] = _read_value(name, value, kind)
    before = {**(earlier or {}), **(_read_file(file) if file else {})}
    before = {name: _as_declared(value, definitions.get(name, {})) for name, value in before.items()}
    arguments = {**before, **arguments}
    for name, keys, value in entries:
        arguments[name] = _with_entry(arguments.get(name, {}), keys, value)
    check_arguments(path, arguments)
    return arguments


def with_defaults(path: Path, arguments: dict[str, Any], needed: Iterable[str] = ()) -> dict[str, Any]:
    """A pipeline's arguments with its defaults for what is not given.

    Raises:
        ConfigError: The pipeline has no parameter of a name that is needed.
    """
    values = {**{name: item.get("defaultValue") for name, item in read_definitions(path).items()}, **arguments}
    if lacking := [name for name in needed if name not in values]:
        raise ConfigError(f"{path.stem} has no parameter {lacking[0]!r}, which this command looks at; take finetune")
    return values


def check_arguments(path: Path, arguments: dict[str, Any]) -> None:
    """Check that arguments fit a compiled pipeline: names, types, and nothing required missing.

    Raises:
        ConfigError: They do not.
    """
    definitions = read_definitions(path)
    for name, value in arguments.items():
        if name not in definitions:
            raise ConfigError(f"{path.stem} has no parameter {name!r}; {_nearest(name, definitions)}")
        kind = definitions[name]["parameterType"]
        if not _fits(value, kind):
            raise ConfigError(f"{name} is {_KINDS[kind]}; got {value!r}")
    missing = [name for name, item in definitions.items() if not item.get("isOptional") and name not in arguments]
    if missing:
        raise ConfigError(f"{path.stem} needs {', '.join(f'{name}=...' for name in missing)}")


def _as_declared(value: Any, definition: dict[str, Any]) -> Any:
    """Return a number in its parameter's type: KFP gives whole numbers back as 5.0, and a file may say 75 for 75.0."""
    kind = definition.get("parameterType")
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if kind == "NUMBER_DOUBLE" and type(value) is int else value


def _read_file(file: str) -> dict[str, Any]:
    try:
        value = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--arguments {file}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--arguments {file}: a JSON object is needed; got a {type(value).__name__}")
    return value


def _nearest(name: str, definitions: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, definitions, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(definitions))}"


def _read_value(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    if kind in ("LIST", "STRUCT") and text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except OSError as error:
            raise ConfigError(f"{name}: {text[1:]} cannot be read ({error.strerror})") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {_KINDS[kind]}; got {text!r}") from error
    return float(value) if kind == "NUMBER_DOUBLE" and type(value) is int else value


def _read_entry(text: str) -> Any:
    """Return an entry of an object: JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _with_entry(value: Any, keys: list[str], entry: Any) -> Any:
    """Return an object with one entry set, however deep."""
    if not keys:
        return entry
    inner = value if isinstance(value, dict) else {}
    return {**inner, keys[0]: _with_entry(inner.get(keys[0]), keys[1:], entry)}


def _fits(value: Any, kind: str) -> bool:
    return {
        "STRING": lambda: isinstance(value, str),
        "NUMBER_INTEGER": lambda: type(value) is int,
        "NUMBER_DOUBLE": lambda: type(value) in (int, float),
        "BOOLEAN": lambda: isinstance(value, bool),
        "LIST": lambda: isinstance(value, list),
        "STRUCT": lambda: isinstance(value, dict),
    }[kind]()
