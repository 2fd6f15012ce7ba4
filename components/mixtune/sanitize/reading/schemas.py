"""Rows to records: the schema of a file, detected from its first row or given as a column mapping.

A schema says which fields it reads. Any other field that says something is counted by name, or refused where it has a
meaning that cannot be honoured (`fields`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record
from mixtune.sanitize.reading import fields as names
from mixtune.sanitize.reading import row_answers
from mixtune.sanitize.reading.fields import account, check_decision, check_wanted, first_filled, fold, is_wish
from mixtune.sanitize.reading.framing import (
    Fields,
    finished,
    framed,
    question_and_answer,
    read_spelled_calls,
    read_tools,
    tools_of,
    with_system,
    with_thought,
    without_spelled_tools,
)
from mixtune.sanitize.reading.message_forms import is_message, names_speaker, read_messages
from mixtune.sanitize.reading.nested_rows import describe_kind, opened, read_cells
from mixtune.sanitize.reading.values import (
    Json,
    JsonObject,
    Unread,
    is_blank,
    is_null_text,
    label_of,
    parse_column,
    text_of,
)
from mixtune.sanitize.rules.lone_turns import check_turns

_SIDES = ("prompt", "completion", "messages", "tools", "label")
COLUMNS = (*_SIDES, "system", "reasoning", "id", "group", "consent", "weight")
"""What a column mapping may name; a value is a column, or a template with `{column}` in it."""
_RENDERED = re.compile(names.TABLES["rendered"]["marks"])
_ANSWERING, _PICTURES = (re.compile(names.TABLES["rendered"][name]) for name in ("answering", "pictures"))
_ASKED = re.compile(_ANSWERING.pattern + r"\Z")
_NO_NAME = re.compile(r"(?s)(?:\S+\s+){3}\S.*|.*[?!.]|\d+|column \d+")
WAYS = 'name two by customer_columns, or a pool\'s `columns`, such as {"prompt": COLUMN, "completion": COLUMN}'
_FIELD = re.compile(r"\{([^{}]+)\}")
Mapper = Callable[[JsonObject, Unread], Fields]
"""Takes a row, and counts what it does not read."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How the rows of a file become records."""

    name: str
    mapper: Mapper
    read: frozenset[str]
    """Names of the fields that it reads."""
    folds: bool = False
    """Whether names are compared without case."""
    opens: bool = False
    """Whether a conversation lies deeper in a row."""
    is_mapping: bool = False
    """Whether the user named the columns."""

    def record(self, row: JsonObject, file: str, line: int, unread: Unread) -> Record:
        """Return a row as a record; its `id` stays empty, since cleaning changes its content.

        Raises:
            DataError: It is not a conversation that ends with an answer; the reason alone, without content.
            Refused: Its answer is marked as unwanted.
        """
        row = opened(row) if self.opens else read_cells(row)
        if self.folds:
            row = _without_twins(row, [fold(name) for name in row])
        if not row.keys() <= self.read:
            row = row if self.is_mapping else self._renamed(row)
            account(row, self.read, unread, refuses=not self.is_mapping)
        fields = self.mapper(row, unread)
        if not (self.is_mapping or row.keys() <= self.read):
            row_answers.check_filled(fields.messages, {name: row[name] for name in row.keys() - self.read})
        messages = read_spelled_calls(row_answers.without_marks(fields.messages, unread), fields.tools, unread)
        messages = without_spelled_tools(messages, fields.tools, unread) if fields.tools else messages
        fields.messages = check_turns(messages, unread)
        return _checked(fields, file, line)

    def _renamed(self, row: JsonObject) -> JsonObject:
        """Return a row whose other fields have the names that are read, where but case, spaces or humps differ."""
        folded = {name: fold(name) for name in row.keys() - self.read}
        to_read = {name: same for name, same in folded.items() if same in self.read - row.keys() and same != "group"}
        return _without_twins(row, [to_read.get(name, name) for name in row]) if to_read else row


def _without_twins(row: JsonObject, renamed: list[str]) -> JsonObject:
    """Return a row by other names; raise DataError where two of its fields get one."""
    if twin := next((name for place, name in enumerate(renamed) if name in renamed[:place]), ""):
        raise DataError(f"two columns are named {twin}, but for case and spaces; rename one of the two")
    return dict(zip(renamed, row.values(), strict=True))


def find_schema(row: JsonObject, columns: dict[str, str]) -> Schema:
    """Return the schema of a file by its first readable row, or by a column mapping.

    Raises:
        ConfigError: A mapping of unknown keys, or of columns that the file does not have.
        DataError: No known schema.
    """
    if columns:
        check_columns(row, columns)
        return _mapping(columns)
    row, cells = opened(row), read_cells(row)
    opens = row != cells
    if schema := _detect(row):
        return replace(schema, opens=opens)
    if schema := _detect({fold(name): value for name, value in row.items()}):
        return replace(schema, folds=True, opens=opens)
    for column in names.CONVERSATIONS:
        if isinstance(text := row.get(column), str) and text.lstrip().startswith(("[{'", "{'")):
            raise DataError(f"{column} is not JSON (single quotation marks, as Python prints; write it by json.dumps)")
    ways = describe_kind(row) or _describe_columns(row)
    raise DataError(
        f"no known schema in columns {', '.join(row)}; {ways}; docs/data.md has the forms that are detected"
    )


def _describe_columns(row: JsonObject) -> str:
    """Return what to do with columns of no known names."""
    if column := next((name for name in row if _are_turns(row[name])), ""):
        return f"name its messages by columns={{'messages': {column!r}}}"
    texts = [name for name in row if isinstance(row[name], str) and not is_blank(row[name])]
    lists = [name for name in row if isinstance(row[name], (list, tuple))]
    talks = [name for name in lists if name in names.CONVERSATIONS]
    if column := next(iter(talks or (lists if len(texts) < 2 else ())), ""):
        return f"{column} holds no messages with role and content; write them as `messages`, or {WAYS}"
    header = "; where its first line is a row or a title, write the columns' names there: prompt,completion"
    return WAYS + header if any(map(_NO_NAME.fullmatch, row)) else WAYS


def _are_turns(value: Json) -> bool:
    """Return whether a value is a list of messages with their speakers, or one as JSON text."""
    return row_answers.holds_messages(value) and names_speaker(parse_column(value)[0])


def check_columns(row: JsonObject, columns: dict[str, str]) -> None:
    """Check a column mapping against a row.

    Raises:
        ConfigError: An unknown key, a missing column, or neither messages nor prompt and completion.
    """
    check_mapping(columns)
    for key, value in columns.items():
        for name in _names(value):
            if name not in row:
                raise ConfigError(
                    f"columns: {key} is {value!r}, but there is no column {name!r}; there are {sorted(row)}"
                )


def check_mapping(columns: dict[str, str]) -> None:
    """Check a column mapping by itself; an empty one is none.

    Raises:
        ConfigError: An unknown key, double braces, or neither messages nor prompt and completion.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ConfigError(f"columns: unknown key {unknown[0]!r}; there are {', '.join(COLUMNS)}")
    if columns and "messages" not in columns and not {"prompt", "completion"} <= set(columns):
        raise ConfigError("columns: give `messages`, or both `prompt` and `completion`")
    for key, value in columns.items():
        if "{{" in value or "}}" in value:
            raise ConfigError(f"columns: {key} is {value!r}; a column stands in one pair of braces: {{column}}")


def _names(value: str) -> list[str]:
    return _FIELD.findall(value) if "{" in value else [value]


def _detect(row: JsonObject) -> Schema | None:
    for column in names.CONVERSATIONS:
        if row_answers.holds_messages(row.get(column)):
            return _conversation(column, row[column])
    if choices := row_answers.choices_of(row):
        answer = next(name for name in row_answers.RIGHT_CHOICE if name in row)
        read = frozenset(
            ("question", *choices, *row_answers.RIGHT_CHOICE, *names.CONTEXTS, *names.WANTED, *names.AROUND)
        )
        name = f"question/{choices[0]}/{answer}"
        return Schema(name=name, mapper=partial(_multiple_choice, choices=choices, answer=answer), read=read)
    for prompt, completion in names.PAIRS:
        if prompt in row and completion in row and (prompt != "context" or names.stand_alone(row, prompt, completion)):
            texts = [row.get(name) for name in ("prompt", prompt)]
            has_prompt = prompt == "input" and all(isinstance(text, str) and not is_blank(text) for text in texts)
            return _pair_schema("prompt" if has_prompt else prompt, completion)
    for label in names.LABELS:
        if "text" in row and label in row:
            return _pair_schema("text", label)
    if row_answers.holds_messages(row.get("chosen")):
        return _conversation("chosen", row["chosen"])
    return None


def _conversation(column: str, value: Json) -> Schema:
    turns = [turn for turn in parse_column(value) if isinstance(turn, dict)]
    if column == "contents":
        name = "gemini"
    elif any("from" in turn for turn in turns) or column != "messages":
        name = "sharegpt" if column == "conversations" else column
    else:
        name = "converse" if any(isinstance(turn.get("content"), (list, tuple)) for turn in turns) else "chat"
    read = frozenset((column, "weight", *names.CONTEXTS, *names.WANTED, *names.AROUND))
    read |= frozenset() if column == "chosen" else frozenset((*names.CHOSEN, *names.ANSWERS, *names.REASONING))
    return Schema(name=name, mapper=partial(_whole, column=column), read=read)


def _pair_schema(prompt: str, completion: str) -> Schema:
    beside = tuple(name for name in names.BESIDE if name not in (prompt, completion))
    beside += ("definition",) if prompt == "inputs" else ()  # Natural Instructions' task
    read = frozenset((prompt, completion, *beside, *names.REASONING, *names.WANTED, *names.AROUND))
    read |= {"answer"} if prompt == "text" else frozenset()
    mapper = partial(_pair, prompt=prompt, completion=completion, beside=beside)
    return Schema(name=f"{prompt}/{completion}", mapper=mapper, read=read)


def _mapping(columns: dict[str, str]) -> Schema:
    read = frozenset(column for value in columns.values() for column in _names(value)) | frozenset(names.KEPT)
    return Schema(name="mapping", mapper=partial(_mapped, columns=columns), read=read, is_mapping=True)


def _checked(fields: Fields, file: str, line: int) -> Record:
    messages = fields.messages
    if not messages or messages[-1]["role"] != "assistant":
        ways = "end with an answer, or name its column by columns={'messages': ..., 'completion': COLUMN}"
        raise DataError(f"the last message is not the assistant's; {ways}")
    for message in messages:
        if len(text := message["content"]) < 16 or text[:1] in "<[" or text[-1:] in ">\n" or "](data:" in text:
            _check_text(message["role"], text)
    if not any(message["role"] == "user" for message in messages):
        raise DataError("no message of the user's")
    if not messages[-1].get("learn", True) and not any(
        turn.get("learn", True) for turn in messages if turn["role"] == "assistant"
    ):
        raise DataError("all turns of the assistant's are left out of training by their weight")
    record: Record = {"id": "", "messages": messages, "origin": {"file": file, "line": line}}
    if fields.tools:
        record["tools"] = fields.tools
    if fields.label:
        record["label"] = fields.label
    if fields.group:
        record["group"] = fields.group
    if fields.consent:
        record["consent"] = fields.consent
    if fields.weight is not None and not is_blank(fields.weight):
        record["weight"] = _weight(fields.weight)
    return record


def _check_text(role: str, text: str) -> None:
    """Refuse a text that stands for another, or that a template has rendered already."""
    is_asked = role in ("user", "system")
    if is_asked and text[:1] in "<[" and _RENDERED.match(text):
        raise DataError("a question holds the marks of a chat template; write the text that they surround alone")
    if _ANSWERING.match(text) if role == "assistant" else is_asked and _ASKED.search(text):
        raise DataError("a message holds the marks of a chat template; write the text that they surround alone")
    if role == "user" and _PICTURES.search(text):
        raise DataError("a picture stands in a question: images, audio and video are not read; leave out such rows")
    if is_asked and text == "-":
        raise DataError("a question is -, which stands for one that is elsewhere; write the question itself")
    if role != "tool" and is_null_text(text):
        raise DataError(f"a message is {text.strip()}, as tables write an empty cell; leave it empty")


def _weight(value: Json) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < math.inf:
        raise DataError("its weight is not a number of 0 or more")
    return weight


def _mapped(row: JsonObject, unread: Unread, columns: dict[str, str]) -> Fields:
    turns = _mapped_turns(row, unread, columns)
    values = {key: _value(row, value) for key, value in columns.items() if key not in _SIDES}
    fields = finished(Fields(messages=with_system(turns, [values.get("system", "")]), weight=values.get("weight")), row)
    if values.get("reasoning"):
        turns[-1]["reasoning"] = values["reasoning"]
    if "label" in columns:
        name = columns["label"]
        fields.label = _value(row, name) if "{" in name else label_of(row.get(name))
        if columns.get("completion") == name:
            turns[-1]["content"] = fields.label
    if "tools" in columns and not is_blank(row[columns["tools"]]):
        fields.tools = read_tools(row[columns["tools"]], unread)
    fields.group, fields.consent = values.get("group", fields.group), values.get("consent", fields.consent)
    return fields


def _mapped_turns(row: JsonObject, unread: Unread, columns: dict[str, str]) -> list[Message]:
    """Return the messages that a mapping names, or the question, and the answer behind them."""
    sides = {key: row.get(name) if "{" not in name else _value(row, name) for key, name in columns.items()}
    if "messages" in columns:
        turns = read_messages(sides["messages"], unread)
    else:
        turns = row_answers.asked(sides["prompt"], columns["prompt"], unread, [])
    if "completion" in columns:
        name = columns["completion"]
        turns = row_answers.with_chosen(turns, row_answers.answered(sides["completion"], name, unread), name, unread)
    return turns


def _value(row: JsonObject, value: str) -> str:
    if "{" not in value:
        return text_of(row.get(value))
    if column := next((name for name in _names(value) if row_answers.holds_messages(row.get(name))), ""):
        raise DataError(f"{column} holds messages, which a template cannot; name the column alone")
    return _FIELD.sub(lambda match: text_of(row.get(match[1])), value)


def _multiple_choice(row: JsonObject, unread: Unread, choices: tuple[str, ...], answer: str) -> Fields:
    check_wanted(row, unread, labels=True)
    if not (is_wish(row.get("label")) or is_blank(row.get("label"))):
        unread["label"] += 1
    question, letter = row_answers.letter_choices(row, choices, answer)
    asked_about = tuple(name for name in names.CONTEXTS if name not in choices)
    contexts = row_answers.contexts_of(row, asked_about, unread)
    messages = question_and_answer("\n\n".join([*contexts, question]), letter)
    return finished(Fields(messages=framed(messages, row, unread), tools=tools_of(row, unread)), row)


def _pair(row: JsonObject, unread: Unread, prompt: str, completion: str, beside: tuple[str, ...]) -> Fields:
    is_class = prompt == "text"
    check_wanted({**row, completion: None, "label": None} if is_class else row, unread)
    row = row_answers.filled(row, prompt, completion, beside, unread)
    question, answer = row[prompt], row[completion]
    if (prompt, completion) == ("prompt", "completion"):
        question, answer = row_answers.without_separators(question, answer, unread)
    solution = row.get("solution") if (prompt, completion) == ("question", "answer") else None
    if isinstance(solution, str) and not is_blank(solution) and solution != answer:
        raise DataError("solution: another answer stands beside the answer; say by columns which is to be learned")
    if isinstance(question, dict) and "messages" in question:  # OpenAI's pairs of a preferred answer and another
        account(question, frozenset(("messages", "tools")), unread, f"{prompt}.")
        both = {"tools": question.get("tools"), "functions": row.get("tools")}
        row = {**row, "tools": first_filled(both, names.TOOLS, unread)}
        question = question["messages"]
    contexts = row_answers.contexts_of(row, beside, unread, question)
    turns = row_answers.asked(question, prompt, unread, contexts)
    if len(turns) == 1 and not is_class and names.first_filled(row, names.HISTORY, unread) is None:
        names.check_alone(row)
    tools = tools_of(row, unread)
    if is_class:
        check_decision(row, unread)
        unread.update({"label"} if completion != "label" and not is_blank(row.get("label")) else ())
        answer = label_of(row_answers.sole_answer(answer, completion))
    turns_after = row_answers.answered(answer, completion, unread, calls=bool(tools))
    if completion == "chosen" and turns_after[0]["role"] != "assistant":  # the chosen is the whole conversation
        turns = []
    last = turns_after[-1]
    if (reasoning := names.thought_of(row, unread)) is not None and last["role"] == "assistant":
        turns_after[-1] = {**last, "reasoning": text_of(reasoning)}
    label = answer if is_class else ""
    return finished(Fields(messages=framed([*turns, *turns_after], row, unread), tools=tools, label=label), row)


def _whole(row: JsonObject, unread: Unread, column: str) -> Fields:
    if len(row) == 1:
        return Fields(messages=read_messages(row[column], unread))
    check_wanted(row, unread, labels=True)
    label = None if is_wish(row.get("label")) else row.get("label")
    messages = read_messages(row[column], unread)
    is_answered = bool(messages) and messages[-1]["role"] == "assistant"
    beside = () if column == "chosen" else names.CHOSEN if is_answered else (*names.CHOSEN, *names.ANSWERS)
    if (answer := first_filled(row, beside, unread)) is not None:
        name = next(name for name in beside if row.get(name) == answer)
        if name in names.ANSWERS and isinstance(answer, dict) and not is_message(answer):
            raise DataError(f"{name} is an object around a text; write the text alone, or a whole message")
        messages = row_answers.with_chosen(
            messages, row_answers.answered(row_answers.best_of(answer), name, unread), name, unread
        )
    if column != "chosen":
        messages = with_thought(messages, row, unread)
    if is_answered and not row.keys().isdisjoint(names.ANSWERS):
        unread.update(name for name in names.ANSWERS if not is_blank(row.get(name)))
    row_answers.check_contexts(row, messages, unread)
    tools = tools_of(row, unread)
    messages = framed(messages, row, unread)
    fields = Fields(messages=messages, tools=tools, weight=row.get("weight"))
    if not isinstance(label, (list, tuple, dict)):
        fields.label = label_of(label)
    elif not is_blank(label):
        unread["label"] += 1
    return finished(fields, row)
