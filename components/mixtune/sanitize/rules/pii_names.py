"""Names and places in texts, by presidio with an installed spaCy model; nothing is downloaded.

This is the slow tier: a language model reads every text, some hundred records a second and core. It runs only where
a policy for `name` or `address` asks for it.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mixtune.errors import ConfigError

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

KINDS = {"name": "PERSON", "address": "LOCATION"}
"""Our kinds, and what presidio calls them; a place that a sentence is about is an address to it, too."""
_SLICE = 100_000
"""Characters that are read at once; spaCy refuses more than a million."""
_PLACEHOLDER = re.compile(r"\[[A-Z_]+(?:-[0-9a-f]{12})?\]")


def find_names(text: str, model: str) -> list[tuple[str, int, int]]:
    """Kind, start and end of each name and place in a text, in order, by a spaCy model; placeholders are none."""
    analyzer, language = load_analyzer(model)
    placeholders = [match.span() for match in _PLACEHOLDER.finditer(text)]
    kinds = {entity: kind for kind, entity in KINDS.items()}
    names = []
    for start in range(0, len(text), _SLICE):
        for item in analyzer.analyze(text[start : start + _SLICE], language, entities=list(kinds)):
            first, last = start + item.start, start + item.end
            if not any(first < end and begin < last for begin, end in placeholders):
                names.append((kinds[item.entity_type], first, last))
    return sorted(names, key=lambda item: item[1])


@lru_cache(maxsize=1)
def load_analyzer(model: str) -> tuple["AnalyzerEngine", str]:
    """Presidio's analyzer with the model's entities alone, and the model's language.

    Raises:
        ConfigError: Presidio or the model is not installed.
    """
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ImportError as error:
        raise ConfigError(
            "personal_data: names and addresses need presidio; build the data image with the extra `names`"
        ) from error
    if not (spacy.util.is_package(model) or (Path(model) / "config.cfg").is_file()):
        raise ConfigError(
            f"personal_data: names and addresses need a spaCy model, and {model!r} is neither installed nor a folder; "
            "put one into the data image and name it in name_model"
        )
    language = str(spacy.util.load_config(_config_of(model))["nlp"]["lang"])
    engine = SpacyNlpEngine([{"lang_code": language, "model_name": model}])
    recognizer = SpacyRecognizer(supported_language=language, supported_entities=list(KINDS.values()))
    registry = RecognizerRegistry([recognizer], supported_languages=[language])
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language]), language


def _config_of(model: str) -> Path:
    import spacy

    if not spacy.util.is_package(model):
        return Path(model) / "config.cfg"
    return next(Path(spacy.util.get_package_path(model)).glob("*/config.cfg"))
