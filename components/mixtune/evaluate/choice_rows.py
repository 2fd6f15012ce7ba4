"""Questions with choices, from rows in the layouts of `choice_layouts`.

A passage in a column such as `context` or `article` stands before the question. The right answer is a letter or label,
an index, or a choice's text: whatever fits all rows. Where indexes count from follows from the rows, too.
"""

import re
import string
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mixtune import benchmark_files
from mixtune.artifacts.samples import prompt_hash
from mixtune.benchmark_files import ANSWERS, LISTS, NUMBERED, QUESTIONS, SUBJECTS, Row
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.choice_layouts import WRONG, first_filled, is_blank, read_choices, split_letter
from mixtune.evaluate.scoring.label_names import spell_without_case

NO_SUBJECT = "all"
_HIDDEN = ("", "-1", "None", "nan")
"""What published test splits have in place of answers that are kept secret."""
_MIN_INDEXES = 10
"""So many indexes do not tell where they count from, where none is that of the first or of the last choice."""
_NAMED = re.compile(r"(?:(?:option|choice|answer)[\s_:]*)?\(?([A-Za-z]|\d+)(?:\.0)?\)?[.:]?", re.IGNORECASE)
"""An answer that is a letter or a number: `C`, `(C)`, `C.`, `option_c`, `2`, `2.0`."""


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions:
    """Options of a benchmark of questions with choices."""

    uri: str
    columns: dict[str, str] = field(default_factory=dict)
    """The file's columns by ours: `question`, `context`, `choices`, `answer`, `subject`, or `A`, `B` ... for one choice
    each. Usual names need none."""
    first_index: int | None = None
    """Index of the first choice where answers are indexes, 0 or 1; None: as the rows show it."""

    def __post_init__(self) -> None:
        if self.first_index not in (None, 0, 1):
            raise ConfigError(f"first_index is 0 or 1, got {self.first_index}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item."""

    item_id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index into `choices`."""
    also_right: tuple[int, ...] = ()
    """Indexes of further right ones."""
    context: str = ""
    """A passage that the question is about."""
    is_continued: bool = False
    """Choices go on with it or fill its blank, instead of answering it."""
    bias: tuple[float, ...] = ()
    """Of BBQ: of each choice, whether it confirms a stereotype (1), contradicts it (-1), or says nothing (0)."""

    @property
    def cluster(self) -> str:
        """Questions about one passage are not independent; empty: it has none."""
        return prompt_hash(self.context) if self.context else ""

    @property
    def letters(self) -> str:
        """One letter per choice."""
        return string.ascii_uppercase[: len(self.choices)]

    @property
    def others_right(self) -> tuple[int, ...]:
        """Indexes of right choices but the first; a text that is there twice is right twice."""
        right = {self.choices[place] for place in (self.answer, *self.also_right)}
        return tuple(place for place, text in enumerate(self.choices) if text in right and place != self.answer)

    def after_context(self, prompt: str) -> str:
        """Return a prompt behind the passage, where there is one."""
        return f"{self.context}\n{prompt}" if self.context else prompt


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A row whose right answer is not found yet."""

    place: str
    question: Question
    """Its id, and which choice is right, are not known yet."""
    names: list[str]
    answer: str
    is_number: bool
    """The answer is no text in the file."""
    beside: "_Draft | None" = None
    """The same with the answer of `answer_index` or `answer_idx`, where the row has it beside another."""

    def named(self) -> int | None:
        """Return which choice the answer names by its letter or label."""
        plain, names = spell_without_case(self.answer), [spell_without_case(name) for name in self.names]
        match = _NAMED.fullmatch(plain)
        for name in (plain, match[1] if match else ""):
            if name in names:
                return names.index(name)
        letter, text = split_letter(self.answer)  # "B) Paris"
        place = names.index(letter.lower()) if letter.lower() in names else 0
        return place if letter and self.question.choices[place] == text else None

    def index(self) -> int | None:
        """Return the index that the answer is, wherever it counts from."""
        match = _NAMED.fullmatch(self.answer)
        return int(match[1]) if match and match[1].isdigit() and not self.names[0].isdigit() else None

    def spelled(self) -> int | None:
        """Return which choice's text the answer is; the case counts where two differ in no more."""
        for spell in (str.strip, spell_without_case):
            texts, answer = [spell(text) for text in self.question.choices], spell(self.answer)
            if not self.is_number and (answer in texts if spell is str.strip else texts.count(answer) == 1):
                return texts.index(answer)
        return None

    def contradicts(self, answer: int) -> bool:
        """Return whether the row says in another column that it is another choice."""
        index = self.beside.index() if self.beside else None
        places = {self.beside.named(), self.beside.spelled()} if self.beside else set()
        places |= {index, index - 1} if index is not None else set()
        return bool(places - {None}) and answer not in places


def read_questions(options: ChoiceOptions) -> dict[str, list[Question]]:
    """Return the questions of a benchmark by split; one without answers is left out, `train` read where no other is.

    Raises:
        DataError: A row in no known layout, or answers that can be read in two ways.
    """
    uri, drafts = options.uri, dict[str, list[_Draft]]()
    for splits in (("test", "dev", "validation"), ("train",)):
        read = {} if any(drafts.values()) else benchmark_files.read_splits(uri, splits, options.columns)
        has_answers = any(name in row for rows in read.values() for row in rows for name in ANSWERS)
        for split, rows in read.items():
            if rows and has_answers and all(map(_is_hidden, rows)):
                print(f"{uri}: its {split} split has no answers and is left out", flush=True)
            else:
                drafts[split] = list(_drafts(rows, uri))
    answers = iter(_answers([draft for split in drafts.values() for draft in split], options))
    return {split: _questions(rows, answers) for split, rows in drafts.items()}


def _is_hidden(row: Row) -> bool:
    """Return whether a row has no right answer in any of the usual columns, or an empty place for it."""
    return all(str(row[name]).strip() in _HIDDEN for name in ANSWERS if name in row)


def _drafts(rows: list[Row], uri: str) -> Iterator[_Draft]:
    """Yield the rows' drafts."""
    columns = {name for row in rows for name in row if NUMBERED.fullmatch(name) or WRONG.fullmatch(name)}
    benchmark_files.name_unread(rows, {*LISTS, *columns, "best_answer", "answers"}, uri)
    for number, row in enumerate(rows, 1):
        place = f"{uri} row {number}"
        choices, names, answer, also_right = read_choices(row, place)
        question = Question(
            item_id="",
            subject=str(next((row[name] for name in SUBJECTS if not is_blank(row.get(name))), NO_SUBJECT)),
            question=str(first_filled(row, QUESTIONS, place)),
            context="\n".join(benchmark_files.passages(row, place)),
            choices=tuple(choices),
            answer=-1,
            also_right=also_right,
            is_continued=bool(row.get(benchmark_files.CONTINUED)),
            bias=tuple(row.get(benchmark_files.BIAS, ())),
        )
        is_number, text = isinstance(answer, int | float), str(answer).strip()
        draft = _Draft(place=place, question=question, names=names, answer=text, is_number=is_number)
        second = next((row[name] for name in ("answer_index", "answer_idx") if not is_blank(row.get(name))), None)
        yield draft if second is None else replace(draft, beside=replace(draft, answer=str(second).strip()))


def scored_as_texts(questions: list[Question], uri: str) -> list[Question]:
    """Return questions without the choices that have no text, whose probability would be that of a space.

    Raises:
        DataError: A right choice has no text, or no other has one.
    """
    shown = []
    for item in questions:
        places = [place for place, text in enumerate(item.choices) if text.strip()]
        if item.answer not in places or len(places) < 2:
            raise DataError(f"{uri}: item {item.item_id}: its right choice, or all others, have no text; leave it out")
        choices, answer = tuple(item.choices[place] for place in places), places.index(item.answer)
        also_right = tuple(places.index(place) for place in item.also_right if place in places)
        bias = tuple(item.bias[place] for place in places if item.bias)
        shown.append(replace(item, choices=choices, answer=answer, also_right=also_right, bias=bias))
    return shown


def _answers(drafts: list[_Draft], options: ChoiceOptions) -> list[int]:
    """Return the index of every right choice: answers are all choices' texts, or else letters, labels and indexes."""
    spelled, named = [draft.spelled() for draft in drafts], [draft.named() for draft in drafts]
    indexed = [draft for draft, place in zip(drafts, named, strict=True) if place is None and draft.index() is not None]
    first = _first_index(indexed, options, may_tell_nothing=None not in spelled)
    for place, draft in enumerate(drafts):
        index = draft.index()
        if named[place] is None and index is not None and 0 <= index - first < len(draft.question.choices):
            named[place] = index - first
    if None not in spelled and None not in named and named != spelled:
        draft = next(draft for draft, *both in zip(drafts, named, spelled, strict=True) if both[0] != both[1])
        raise DataError(
            f"{draft.place}: answer {draft.answer!r} is an index or a letter, and a choice's text; write its letter"
        )
    readings = (spelled, named) if None not in spelled else (named, spelled)
    places = [second if place is None else place for place, second in zip(*readings, strict=True)]
    if None in places:
        draft = drafts[places.index(None)]
        last, names = len(draft.question.choices) - 1 + first, ", ".join(draft.names)
        kinds = f"an index {first} to {last}, a choice's text, or one of {names}"
        raise DataError(f"{draft.place}: answer is {kinds}; got {draft.answer!r}")
    answers = [place for place in places if place is not None]
    if wrong := [draft for draft, answer in zip(drafts, answers, strict=True) if draft.contradicts(answer)]:
        raise DataError(
            f"{wrong[0].place}: answer is {wrong[0].answer!r}, and answer_index or answer_idx another choice"
        )
    return answers


def _first_index(drafts: list[_Draft], options: ChoiceOptions, *, may_tell_nothing: bool) -> int:
    """Return the first choice's index: the one of 0 and 1 by which every index is one of its row."""
    if options.first_index is not None:
        return options.first_index
    fitting = [
        first
        for first in (0, 1)
        if all(0 <= (draft.index() or 0) - first < len(draft.question.choices) for draft in drafts)
    ]
    if len(fitting) == 2 and len(drafts) >= _MIN_INDEXES and not may_tell_nothing:
        raise DataError(
            f"{options.uri}: none of {len(drafts)} answers is 0, or as many as there are choices, so they count from 0 "
            "or from 1; set first_index, or write letters"
        )
    if drafts and len(fitting) == 2 and not may_tell_nothing:
        print(f"{options.uri}: the answers' indexes are taken to count from 0; first_index says otherwise", flush=True)
    if fitting == [1]:
        print(f"{options.uri}: the answers' indexes count from 1", flush=True)
    return fitting[0] if fitting else 0


def _questions(drafts: list[_Draft], answers: Iterator[int]) -> list[Question]:
    counts: dict[str, int] = defaultdict(int)
    questions = []
    for draft, answer in zip(drafts, answers, strict=False):  # the answers of the next split follow
        subject = draft.question.subject
        questions.append(replace(draft.question, item_id=f"{subject}/{counts[subject]}", answer=answer))
        counts[subject] += 1
    return questions
