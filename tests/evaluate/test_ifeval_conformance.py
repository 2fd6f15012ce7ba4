"""IFEval's verdicts are those of lm-eval's own module, loaded the plain way, for every instruction and many answers."""

import importlib
import random

import pytest

from mixtune.evaluate.scoring import ifeval_checkers
from mixtune.evaluate.scoring.ifeval_checkers import Prompt

ARGUMENTS: dict[str, dict[str, object]] = {
    "keywords:existence": {"keywords": ["card", "naïve"]},
    "keywords:frequency": {"keyword": "card", "frequency": 2, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["lost", "Karte"]},
    "keywords:letter_frequency": {"letter": "e", "let_frequency": 4, "let_relation": "less than"},
    "language:response_language": {"language": "de"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "at least"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 2},
    "length_constraints:number_words": {"num_words": 12, "relation": "less than"},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "second"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_format:number_bullet_lists": {"num_bullets": 2},
    "detectable_format:constrained_response": {},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 2},
    "detectable_format:json_format": {},
    "detectable_format:title": {},
    "combination:two_responses": {},
    "combination:repeat_prompt": {"prompt_to_repeat": "Where is my card?"},
    "startend:end_checker": {"end_phrase": "Any other questions?"},
    "startend:quotation": {},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "at least"},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "punctuation:no_comma": {},
}
PIECES = [
    "Where is my card?", "The card was lost. The new card comes. It is here!", "WHERE IS MY CARD", "my answer is yes.", "My answer is maybe.",
    '{"a": 1}', '```json\n{"a": [1, 2]}\n```', "<<A title>>", "* one\n* two", "- one\n- two\n", "*bold one* and **two**", "Section 1\nx\nSection 2\ny",
    "First.\n\nSecond part.", "First.\n\n***\n\nSecond part.", "one\n******\ntwo", "P.P.S. see you", "P.S. no", "[name], [date] and [place]", "Any other questions?",
    "\"quoted\"", "“quoted”", "Das ist meine Karte, sie ist naïve und verloren.", "カードはどこですか。", "карта, которую потеряли", "", " ", "a, b, c", "NASA AND ESA met.",
]  # fmt: skip


@pytest.fixture(scope="module")
def original() -> object:
    ifeval_checkers.load_checkers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "1")  # rank 0 would try a download
        return importlib.import_module("lm_eval.tasks.ifeval.utils")


@pytest.mark.slow
@pytest.mark.skipif(not ifeval_checkers.find_punkt(), reason="NLTK's punkt_tab is not installed")
def test_an_answer_follows_what_it_follows_for_lm_eval(original: object) -> None:
    pick = random.Random(0)
    answers = PIECES + ["\n".join(pick.sample(PIECES, 3)) for _ in range(12)]
    seen = set()
    for name, arguments in ARGUMENTS.items():
        prompt = Prompt(key="1", prompt="Where is my card?", instruction_id_list=[name], kwargs=[arguments])
        ifeval_checkers.check_instructions([prompt])
        for answer in answers:
            strict, loose = ifeval_checkers.follow(prompt, answer)
            example = original.InputExample(**vars(prompt))  # type: ignore[attr-defined]
            theirs = [
                getattr(original, f"test_instruction_following_{kind}")(example, answer).follow_instruction_list
                for kind in ("strict", "loose")
            ]
            assert [strict, loose] == theirs, (name, answer)
            seen.add((name, strict[0]))
    assert len(seen) == 2 * len(ARGUMENTS), sorted(ARGUMENTS.keys() - {name for name, right in seen if right})
