"""Questions with short free answers, from rows as SQuAD, TriviaQA, NQ-open, HotpotQA, DROP, CoQA and BBH have them.

The right answers stand in `answer` or `answers`: one text or number, a list of them, or an object. A row of SQuAD's
whose list is empty has a question that its passage does not answer.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from mixtune import benchmark_files
from mixtune.artifacts.samples import prompt_hash
from mixtune.benchmark_files import SUBJECTS, Row
from mixtune.errors import DataError
from mixtune.evaluate.scoring.answer_matching import DROP, EXACT, SQUAD, TRIVIA_QA, Reference

ANSWERABLE, UNANSWERABLE = "answerable", "unanswerable"
_FIRST = ("answer", "answers", "answers_spans", "target", "possible_answers", "correct_answer")
_FURTHER = ("validated_answers", "answer_aliases", "aliases")
"""Columns of right answers beside these."""
_CELLS = tuple(name for name in _FIRST if name != "target")
"""Columns whose texts may be a list or an object; BBH asks for brackets themselves."""
_KEYS = ({"text"}, {"input_text"}, {"spans"}, {"value", "aliases"}, {"Value", "Aliases"})
_NO_ANSWER = "No Answer Present."
"""What MS MARCO writes."""
_HIDDEN = ("", "<unk>", "nan")
"""What published test splits have in the place of answers that are kept secret."""


@dataclass(frozen=True, kw_only=True)
class ShortQuestion:
    """One item."""

    item_id: str
    subject: str
    question: str
    references: tuple[Reference, ...]
    """Each is right; empty: the passage has no answer."""
    rule: str
    """By which answers are compared, as `answer_matching` has them."""
    context: str = ""
    """A passage that the question is about."""
    is_continued: bool = False
    """The answer is the word that comes next."""

    @property
    def cluster(self) -> str:
        """Questions about one passage are not independent; empty: it has none."""
        return prompt_hash(self.context) if self.context else ""

    @property
    def gold(self) -> str:
        """Return the first right answer as text."""
        return ", ".join(self.references[0]) if self.references else UNANSWERABLE


def read_questions(uri: str, columns: Mapping[str, str]) -> dict[str, list[ShortQuestion]]:
    """Return the questions of a benchmark by split; a split whose answers are kept secret is left out.

    A question that is there again, about the same passage, counts once, with the answers of all its rows.

    Raises:
        DataError: A row without a question or an answer, with choices, or with what cannot be shown.
    """
    splits = benchmark_files.read_splits(uri, columns=columns, repeats=True)
    splits = {split: [_with_values(row) for row in rows] for split, rows in splits.items()}
    hidden = [split for split, rows in splits.items() if _is_hidden(rows, uri)]
    if len(hidden) < len(splits):
        splits = {split: rows for split, rows in splits.items() if split not in hidden}
        if hidden:
            print(f"{uri}: its {', '.join(hidden)} split has no answers and is left out", flush=True)
    for rows in splits.values():
        benchmark_files.name_unread(rows, {*_FIRST, *_FURTHER}, uri)
    return {split: _each_once(list(_read(rows, uri)), uri) for split, rows in splits.items()}


def _read(rows: list[Row], uri: str) -> Iterator[ShortQuestion]:
    """Yield the questions of a split."""
    for number, row in enumerate(rows, 1):
        place = f"{uri} row {number}"
        benchmark_files.text_of_problem(row, place)
        references, rule = _references(row, place)
        if not references and not _is_unanswerable(row):
            raise DataError(
                f"{place}: no right answer; there are {', '.join(row)}; name its column as columns={{'answer': ...}}, "
                "say is_impossible where the passage has none, or leave it out"
            )
        yield ShortQuestion(
            item_id=str(number - 1),
            subject=str(next((row[name] for name in SUBJECTS if row.get(name)), "all")),
            question=benchmark_files.text_asked(row, place),
            context="\n".join(benchmark_files.passages(row, place)),
            references=references,
            rule=rule,
            is_continued=bool(row.get(benchmark_files.CONTINUED)),
        )


def _each_once(questions: list[ShortQuestion], uri: str) -> list[ShortQuestion]:
    """Return the questions without repetitions; their subject is whether there is an answer, where some have none."""
    by_text: dict[tuple[str, str], ShortQuestion] = {}
    for item in questions:
        first = by_text.setdefault((item.context, item.question), item)
        if first is not item:
            references = tuple(dict.fromkeys(first.references + item.references))
            by_text[item.context, item.question] = replace(first, references=references)
    if repeated := len(questions) - len(by_text):
        print(f"{uri}: {repeated} of {len(questions)} rows ask what others ask; each question counts once", flush=True)
    items = list(by_text.values())
    if all(item.references for item in items):
        return items
    return [replace(item, subject=ANSWERABLE if item.references else UNANSWERABLE) for item in items]


def _is_unanswerable(row: Row) -> bool:
    """Return whether a row says that its passage has no answer: by a mark, or SQuAD's by an empty list."""
    answers = row.get("answers")
    return _is_marked(row) or (isinstance(answers, dict) and answers.get("text") == [])


def _is_marked(row: Row) -> bool:
    """Return whether a row marks its question as one without an answer, as SQuAD, MuSiQue or MS MARCO do."""
    if benchmark_files.is_marked(row, "is_impossible") or benchmark_files.is_marked(row, "answerable", mark=False):
        return True
    return str(row.get("answers")).strip("[]'\"") == _NO_ANSWER


def _is_hidden(rows: list[Row], uri: str) -> bool:
    """Return whether no row of a split has an answer, though none says that there is none."""
    return not any(_is_marked(row) or _references(row, f"{uri} row {number}")[0] for number, row in enumerate(rows, 1))


def _with_values(row: Row) -> Row:
    """Return a row with lists of texts and objects of the known benchmarks where its cells hold them as text."""
    cells = {name: text for name in (*_CELLS, *_FURTHER) if isinstance(text := row.get(name), str) and text[:1] in "[{"}
    values = {name: benchmark_files.parse_cell(text) for name, text in cells.items()}
    return row | {name: value for name, value in values.items() if _is_of_texts(value)}


def _is_of_texts(value: object) -> bool:
    """Return whether a value is a list of texts, or an object as one of the known benchmarks has its answers."""
    if isinstance(value, dict):
        return any(keys <= value.keys() for keys in _KEYS)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _references(row: Row, place: str) -> tuple[tuple[Reference, ...], str]:
    """Return all right answers of a row, and the rule by which they are compared.

    Raises:
        DataError: One is neither text nor number, nor an object of a known benchmark.
    """
    if _is_marked(row):
        return (), SQUAD  # what its answers are called then is plausible, not right
    name = next((name for name in _FIRST if not _is_empty(row.get(name))), "")
    values = [row[name] for name in (name, *_FURTHER) if name and not _is_empty(row.get(name))]
    rule = DROP if any(map(_is_drop, values)) else TRIVIA_QA if _is_trivia_qa(values) else SQUAD
    rule = EXACT if name == "target" else rule  # BBH sorts words
    references = [reference for value in values for reference in _spell(value, place)]
    return tuple(dict.fromkeys(item for item in references if any(text.strip() for text in item))), rule


def _is_empty(value: object) -> bool:
    return value is None or value == [] or str(value).strip() in _HIDDEN


def _is_drop(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "spans" in first


def _is_trivia_qa(values: list[object]) -> bool:
    return any(isinstance(value, dict) and {"aliases", "Aliases"} & set(value) for value in values)


def _spell(value: object, place: str) -> Iterator[Reference]:
    """Yield the right answers that a value is."""
    match value:
        case str():
            yield from [] if value in _HIDDEN else [(value.strip(),)]
        case bool():
            yield ("yes" if value else "no",)
        case int() | float() | Decimal() if math.isfinite(value):
            yield (str(int(value)) if value == int(value) else str(value),)
        case None | float() | Decimal():  # NaN: an empty cell
            return
        case list():
            for item in value:
                yield from _spell(item, place)
        case {"text": texts} | {"input_text": texts}:  # SQuAD
            yield from _spell(texts, place)
        case {"spans": _}:
            yield from _spell_drop(value, place)
        case {"value": first, "aliases": list(aliases)} | {"Value": first, "Aliases": list(aliases)}:  # TriviaQA
            yield from _spell([first, *aliases], place)
        case _:
            raise DataError(
                f"{place}: an answer is a text or a number, a list of them, or an object of SQuAD, TriviaQA or DROP; "
                f"got {str(value)[:80]!r}; name another column as columns={{'answer': ...}}"
            )


def _spell_drop(value: object, place: str) -> Iterator[Reference]:
    """Yield the right answers that an object of DROP's is: a number, a date, or spans that are right together."""
    match value:
        case {"spans": list(spans), "types": list()}:  # DROP of the hub: all annotators' in one list
            yield from _spell(spans, place)
        case {"number": list(numbers), "date": list(dates), "spans": list(lists)}:
            for number, date, spans in zip(numbers, dates, lists, strict=True):
                yield from _spell_drop({"number": number, "date": date, "spans": spans}, place)
        case {"number": number, "date": date, "spans": list(spans)}:
            day = " ".join(str(date.get(part) or "") for part in ("day", "month", "year")).strip() if date else ""
            yield (str(number),) if number not in ("", None) else tuple(map(str, spans)) or (day,)
        case _:
            raise DataError(f"{place}: an answer of DROP has number, date and spans; got {str(value)[:80]!r}")
