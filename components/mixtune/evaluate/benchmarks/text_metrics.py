"""How near a generated text comes to its reference; all between 0 and 1."""

import json
import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any

import sacrebleu

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def compare_texts(response: str, reference: str) -> dict[str, float]:
    """A response's measures against its reference."""
    return {
        "exact_match": float(normalise(response) == normalise(reference)),
        "token_f1": token_f1(response, reference),
        "rouge_l": float(_rouge().score(reference, response)["rougeL"].fmeasure),
        "chrf": sacrebleu.sentence_chrf(response, [reference]).score / 100,
    }


def corpus_bleu(responses: list[str], references: list[str]) -> float:
    """BLEU over all texts at once, as sacrebleu defines it."""
    return sacrebleu.corpus_bleu(responses, [references]).score / 100


def normalise(text: str) -> str:
    """Text for comparing: lower case, no punctuation, no articles, single spaces."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(_ARTICLES.sub(" ", plain).split())


def token_f1(response: str, reference: str) -> float:
    """Harmonic mean of precision and recall over normalised words, as in SQuAD."""
    said, wanted = normalise(response).split(), normalise(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def is_json(text: str) -> bool:
    """Whether a text is one JSON value and nothing else."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def same_json(response: str, reference: str) -> bool:
    """Whether two texts are the same JSON value, whatever its layout and the order of its keys."""
    return is_json(response) and is_json(reference) and json.loads(response) == json.loads(reference)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # it brings NLTK, which takes a second

    return RougeScorer(["rougeL"], use_stemmer=True)
