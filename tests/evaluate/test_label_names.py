"""Labels in generated answers: told apart where they differ at all, and never guessed."""

from typing import Any

import pytest

from mixtune.errors import DataError
from mixtune.evaluate.scoring.labels import LabelSet, find_labels

LANGUAGES, GRADES, NUMBERS = ("C", "C++", "C#"), ("A", "A+", "A-"), ("1", "-1")


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (LANGUAGES, "C", "C"), (LANGUAGES, "C++", "C++"), (LANGUAGES, "C# because of 2", "C#"), (LANGUAGES, "It is C.", "C"),
        (("C", "C#"), "It is C++", ""), (GRADES, "A+", "A+"), (GRADES, "Grade: A-", "A-"), (GRADES, "**A**.", "A"),
        (("A", "B"), "A-", ""), (("A", "B"), "A*", ""), (("A", "B"), "a customer asked", ""),
        (("<5", ">5"), "<5", "<5"), (("<5", ">5"), "It is >5.", ">5"), (NUMBERS, "1", "1"), (NUMBERS, "-1", "-1"),
        (NUMBERS, "The score is -1.", "-1"), (NUMBERS, "The score is 1.", "1"), (("1", "2"), "-1", ""),
        (("1", "2"), "0.1", ""), (("1", "2"), "1.5", ""), (("5", "10"), "10%", ""), (("1", "2"), "<answer>2</answer>", "2"),
        (("👍", "👎"), "👍", "👍"), (("👍", "👎"), "I say 👎!", "👎"), (("👍", "👎"), "", ""), (("❤️", "💔"), "❤", "❤️"),
        (("+", "-"), "+", "+"), (("+", "-"), "-", "-"),
        (("card", "card lost"), "The category is card lost.", "card lost"), (("card_lost", "x"), "Card Lost.", "card_lost"),
        (("toxic", "not toxic"), "This is not toxic.", "not toxic"), (("退款", "换货"), "分类是退款。", "退款"),
        (("환불", "교환"), "이것은 환불입니다", "환불"), (("คืนเงิน", "เปลี่ยน"), "ฉันต้องการคืนเงินครับ", "คืนเงิน"),
        (("Größe", "Farbe"), "GRÖSSE", "Größe"), (("café", "thé"), "cafe\u0301", "café"), (("Ja", "Nein"), "Jahr", ""),
        (("US", "us"), "us", "us"), (("US", "us"), "it is US", "US"), (("IT", "HR"), "I think it is HR", "HR"),
        (("spam", "ham"), "This is not spam.", ""), (("spam", "ham"), "It isn't spam, it is ham.", "ham"),
        (("退款", "换货"), "不是退款", ""), (("Betrug", "ok"), "Das ist kein Betrug.", ""), (("-1", "1"), "Sentiment: -1", "-1"),
        (("5", "<5"), "It is < 5", "<5"), (("<5", "> 5"), ">5", "> 5"), (("1", "-1"), "\u22121", "-1"),
        (("Refund", "not a Refund"), "It is Not a Refund", "not a Refund"), (("a", "a/b"), "It is a / b", "a/b"),
        (("А", "A"), "A", "A"), (("delivery", "billing"), "Delivery or billing", ""),
        (("refund", "other"), '{"label": "refund"}', "refund"), (("refund", "other"), "label=refund", "refund"),
    ],
)  # fmt: skip
def test_an_answer_says_the_label_that_it_names(labels: tuple[str, ...], text: str, label: str) -> None:
    assert LabelSet(labels=labels, answers=()).parse(text) == ([label] if label else [])


@pytest.mark.parametrize("labels", [LANGUAGES, GRADES, NUMBERS, ("US", "us"), ("👍", "👎"), ("<5", ">5"), ("é", "e")])
def test_every_label_reads_as_itself(labels: tuple[str, ...]) -> None:
    names = LabelSet(labels=labels, answers=())
    assert [names.parse(label) for label in labels] == [[label] for label in labels]


def test_labels_that_are_written_alike_are_refused() -> None:
    with pytest.raises(DataError, match="are written alike"):
        LabelSet(labels=("café", "cafe\u0301"), answers=())


def test_answers_that_differ_by_the_spaces_around_them_are_the_one_answer_of_a_label() -> None:
    answers = ["delivery", "delivery", "delivery ", "billing"]
    messages = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in answers]
    records: Any = [
        {"id": str(number), "messages": turns, "label": turns[1]["content"].strip()}
        for number, turns in enumerate(messages)
    ]
    assert find_labels(records, "", {}).answers == ("billing", "delivery")
