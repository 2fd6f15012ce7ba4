"""An engine without a model in memory gives lm-eval what its own engine gives it."""

from typing import Any

import pytest

from mixtune.errors import ConfigError
from mixtune.evaluate.lm_eval_engine import lm_eval_model
from mixtune.inference import loading
from mixtune.inference.loading import ModelSource

from ..evaluation import sentence

TEXTS = [sentence(number) for number in range(4)]


class Remote:
    """An engine whose model is not in this process."""

    def __init__(self, engine: Any) -> None:
        self.score, self.generate, self.max_length = engine.score, engine.generate, engine.max_length


def test_scores_and_answers_are_those_of_lm_evals_own_engine(world: Any) -> None:
    from lm_eval.api.instance import Instance

    source = ModelSource(base_model=str(world.base), device="cpu", dtype="float32")
    fetched = loading.fetch(source)
    engine, tokenizer = loading.load_engine(source, fetched), loading.load_tokenizer(source, fetched)
    ours, theirs = (lm_eval_model(either, tokenizer, 4) for either in (Remote(engine), engine))

    def ask(kind: str, arguments: list[tuple[Any, ...]]) -> tuple[Any, Any]:
        asked = [Instance(kind, {}, pair, place) for place, pair in enumerate(arguments)]  # type: ignore[arg-type]
        return getattr(ours, kind)(asked), getattr(theirs, kind)(asked)

    pairs = [(text, f" {choice}") for text in [*TEXTS, ""] for choice in ("card", "card lost")]
    likely = engine.generate([tokenizer(text)["input_ids"] for text in TEXTS], 1)
    pairs += [
        (text, tokenizer.decode(item.token_ids, skip_special_tokens=True))
        for text, item in zip(TEXTS, likely, strict=True)
    ]
    pairs = [pair for pair in pairs if pair[1]]
    mine, other = ask("loglikelihood", pairs)
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in other], abs=1e-4)
    assert [bool(greedy) for _, greedy in mine] == [bool(greedy) for _, greedy in other]
    assert any(greedy for _, greedy in mine)
    mine, other = ask("loglikelihood_rolling", [(text,) for text in TEXTS])
    assert mine == pytest.approx(other, abs=1e-3)
    greedy = {"until": [" i", "\n"], "do_sample": False, "max_gen_toks": 8}
    mine, other = ask("generate_until", [(text, greedy) for text in TEXTS])
    assert mine == other and any(mine)
    with pytest.raises(ConfigError, match="it samples its answers"):
        ours.generate_until([Instance("generate_until", {}, ("x", {"do_sample": True, "temperature": 0.7}), 0)])
