"""Where a run's arguments point to: files, folders and models, each with the parameter and entry that names it."""

import difflib
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from mixtune import models, storage
from mixtune.errors import ConfigError

MODELS = ("base_model", "other_model", "model_uri", "judge_model")
"""Parameters that hold a model."""
REMOTE = ("s3://", "hf://", "gs://", "http://", "https://", "minio://", "oci://")


Arguments: TypeAlias = dict[str, Any]
"""Values of a pipeline's parameters, as a command line or a file gives them; `check_arguments` holds their types."""


class Place(NamedTuple):
    """A text that names a file, a folder or a model."""

    name: str
    """Parameter and entry, such as `general_pools[0].uri`."""
    text: str


Change = Callable[[Place], str]


def find_places(arguments: Arguments) -> list[Place]:
    """Return every place that the arguments of a pipeline name."""
    places: list[Place] = []

    def remember(place: Place) -> str:
        places.append(place)
        return place.text

    change_places(arguments, remember)
    return places


def change_places(arguments: Arguments, change: Change) -> Arguments:
    """Return arguments with every place changed."""
    return {name: _changed(name, name, value, change) for name, value in arguments.items()}


def _changed(name: str, key: str, value: Any, change: Change) -> Any:
    """Return a value with the places in it changed; `key` is the innermost name."""
    if isinstance(value, dict):
        whole = name == "benchmarks"  # its entries may be places themselves
        return {
            inner: _changed(f"{name}.{inner}", "uri" if whole and isinstance(item, str) else str(inner), item, change)
            for inner, item in value.items()
        }
    if isinstance(value, list):
        return [_changed(f"{name}[{number}]", key, item, change) for number, item in enumerate(value)]
    is_place = isinstance(value, str) and value and (key == "uri" or key.endswith("_uri") or key in MODELS)
    return change(Place(name, value)) if is_place and not name.startswith(("tracking", "storage")) else value


def resolve_places(arguments: Arguments, folder: Path) -> Arguments:
    """Return arguments with `~` and `file://` understood, and relative paths that lie beside their file made absolute.

    `folder` is where the file of arguments lies, or the shell's own.

    Raises:
        ConfigError: A relative path means one thing beside the file and another here, or a `file://` names a host.
    """

    def resolve(place: Place) -> str:
        text = place.text
        if text.startswith("file:"):
            parts = urlsplit(text)
            if parts.netloc not in ("", "localhost"):
                raise ConfigError(f"{place.name} {text!r}: file:// names files of this machine, as file:///folder/file")
            text = unquote(parts.path) + (f"#{parts.fragment}" if parts.fragment else "")
        if text.startswith("~"):
            text = os.path.expanduser(text)
        plain = storage.plain_uri(text)
        beside = folder / plain
        if not is_local(plain) or Path(plain).is_absolute() or not _is_there(beside):
            return text
        if _is_there(Path(plain)) and Path(plain).resolve() != beside.resolve():
            raise ConfigError(
                f"{place.name} {text!r}: one lies beside the arguments' file, another here; write it whole"
            )
        return text if _is_there(Path(plain)) else str(beside.resolve()) + text[len(plain) :]

    return change_places(arguments, resolve)


def _is_there(path: Path) -> bool:
    """Return whether this machine has that file or folder, or a file that matches it as a pattern."""
    return path.exists() or bool(glob.glob(str(path)))


def check_places(arguments: Arguments) -> None:
    """Check that everything local that the arguments name is there, and that benchmarks have a known form.

    Raises:
        ConfigError: Something is not; every one is named with its parameter.
    """
    problems = list(_unknown_benchmarks(arguments.get("benchmarks")))
    for place in find_places(arguments):
        plain = storage.plain_uri(place.text)
        if place.name == "out_uri" or not is_local(plain) or models.is_hub_name(plain):
            continue
        if Path(plain).is_dir() and not any(path.is_file() for path in Path(plain).rglob("*")):
            problems.append(f"{place.name} {plain!r}: a folder without files")
        elif Path(plain).is_file() and place.name in MODELS:
            problems.append(f"{place.name} {plain!r}: a file; give the folder that it lies in")
        elif place.name == "other_model" and Path(plain).is_dir() and not Path(plain, "config.json").is_file():
            problems.append(
                f"{place.name} {plain!r}: no config.json in it; `mixtune merge` makes a model of an adapter"
            )
        elif _is_there(Path(plain)):
            continue
        elif place.name in MODELS:
            example = f", such as {plain}@main" if plain.count("/") == 1 else ""
            hub = f"; of the hub write org/name@revision{example}" if plain.count("/") < 2 else ""
            problems.append(f"{place.name} {plain!r}: no such folder here{hub}")
        else:
            problems.append(f"{place.name} {plain!r}: no such file or folder; give a path or s3:// key that exists")
    if problems:
        raise ConfigError("\n".join(problems))


def _unknown_benchmarks(benchmarks: object) -> Iterator[str]:
    if not isinstance(benchmarks, dict) or not benchmarks:
        return
    from mixtune.evaluate.registry import BENCHMARK_FORMS

    for name, options in benchmarks.items():
        form = options.get("form", name) if isinstance(options, dict) else name
        if form not in BENCHMARK_FORMS and name != "customer":  # which takes min_gain
            near = did_you_mean(str(form), BENCHMARK_FORMS)
            way = near or f"set its form to one of {', '.join(BENCHMARK_FORMS)}"
            yield f"benchmarks.{name}: no known form {form!r}; {way}"


def is_local(place: str) -> bool:
    """Return whether a place is a path rather than a URI."""
    return not place.startswith(REMOTE)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the nearest of some names; empty where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.65)
    return f"did you mean {near[0]!r}?" if near else ""
