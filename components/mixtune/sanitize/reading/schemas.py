"""Rows to records: the schema of a file, detected from its first row or given as a column mapping.

A schema says which fields it reads. Any other field that says something is counted by name, or refused where it has a
meaning that cannot be honoured (`fields`).
"""

import math
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record
from mixtune.sanitize.reading import fields as names
from mixtune.sanitize.reading.fields import account, check_wanted, first_filled, fold, is_wish
from mixtune.sanitize.reading.message_forms import is_message, read_messages, read_system, read_tools
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, label_of, parse_column, text_of

COLUMNS = ("prompt", "completion", "system", "label", "id", "group", "consent", "weight", "messages", "tools")
"""What a column mapping may name; a value is a column, or a template with `{column}` in it."""
_FIELD = re.compile(r"\{([^{}]+)\}")
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "contents")
"""Columns of a whole conversation."""
PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("instruction", "completion"), ("instruction", "answer"),
    ("input", "output"), ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("prompt", "output"),
    ("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer"),
    ("problem", "solution"), ("input_text", "output_text"), ("inputs", "targets"),
    ("user", "assistant"), ("human", "gpt"), ("human", "assistant"),
    ("document", "summary"), ("article", "summary"), ("prompt", "chosen"),
    ("instruction", "chosen"), ("question", "chosen"), ("input", "preferred_output"),
)  # fmt: skip
"""Columns of a question and its answer, as published data sets name them; the first pair that a row has is taken."""
_CHOICES, _CHOSEN_CHOICES = ("choices", "options"), ("answer", "answerKey", "answer_key")
_ONE_CHOICE = ("{}", "option_{}", "choice_{}")
"""Columns of a question's choices: of all of them, of the one that is right, of each by its letter."""
LABELS = ("label", "category", "intent", "class")
"""Columns of a class, beside a `text`."""


@dataclass(kw_only=True, slots=True)
class Fields:
    """What a schema reads of a row."""

    messages: list[Message]
    tools: list[JsonObject] = field(default_factory=list)
    label: str = ""
    group: str = ""
    consent: str = ""
    weight: Json = None


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
    is_mapping: bool = False
    """Whether the user named the columns."""

    def record(self, row: JsonObject, file: str, line: int, unread: Unread) -> Record:
        """Return a row as a record; its `id` stays empty, since cleaning changes its content.

        Raises:
            DataError: It is not a conversation that ends with an answer; the reason alone, without content.
            Refused: Its answer is marked as unwanted.
        """
        if self.folds:
            row = {fold(name): value for name, value in row.items()}
        if not row.keys() <= self.read:
            row = row if self.is_mapping else self._renamed(row)
            account(row, self.read, unread, refuses=not self.is_mapping)
        return _checked(self.mapper(row, unread), file, line)

    def _renamed(self, row: JsonObject) -> JsonObject:
        """Return a row whose other fields have the names that are read, where but case, spaces or humps differ."""
        folded = {name: fold(name) for name in row.keys() - self.read}
        to_read = {name: same for name, same in folded.items() if same in self.read - row.keys() and same != "group"}
        return {to_read.get(name, name): value for name, value in row.items()} if to_read else row


def find_schema(row: JsonObject, columns: dict[str, str]) -> Schema:
    """Return the schema of a file by its first readable row, or by a column mapping.

    Raises:
        ConfigError: A mapping of unknown keys, or of columns that the file does not have.
        DataError: No known schema.
    """
    if columns:
        check_columns(row, columns)
        return _mapping("mapping", columns)
    if schema := _detect(row):
        return schema
    if schema := _detect({fold(name): value for name, value in row.items()}):
        return replace(schema, folds=True)
    raise DataError(
        f"no known schema in columns {', '.join(sorted(row))}; give columns={{'prompt': ..., 'completion': ...}}"
    )


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
    for column in CONVERSATIONS:
        if _holds_messages(row.get(column)):
            return _conversation(column, row[column])
    if choices := _choices_of(row):
        answer = next(name for name in _CHOSEN_CHOICES if name in row)
        read = frozenset(("question", *choices, *_CHOSEN_CHOICES, *names.KEPT))
        name = f"question/{choices[0]}/{answer}"
        return Schema(name=name, mapper=partial(_multiple_choice, choices=choices, answer=answer), read=read)
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            return _pair_schema(prompt, completion)
    for label in LABELS:
        if "text" in row and label in row:
            return _mapping(f"text/{label}", {"prompt": "text", "completion": label, "label": label}, detected=True)
    if _holds_messages(row.get("chosen")):
        return _conversation("chosen", row["chosen"])
    return None


def _holds_messages(value: Json) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = parse_column(value)
        except DataError:
            return False
    return isinstance(value, (list, tuple)) and bool(value) and is_message(value[0])


def _conversation(column: str, value: Json) -> Schema:
    turns = [turn for turn in parse_column(value) if isinstance(turn, dict)]
    if column == "contents":
        name = "gemini"
    elif any("from" in turn for turn in turns) or column != "messages":
        name = "sharegpt" if column == "conversations" else column
    else:
        name = "converse" if any(isinstance(turn.get("content"), (list, tuple)) for turn in turns) else "chat"
    read = frozenset((column, *names.WANTED[:1], *names.AROUND))
    read |= frozenset() if column == "chosen" else frozenset(names.CHOSEN)
    return Schema(name=name, mapper=partial(_whole, column=column), read=read)


def _pair_schema(prompt: str, completion: str) -> Schema:
    beside = tuple(name for name in names.BESIDE if name not in (prompt, completion))
    read = frozenset((prompt, completion, *beside, *names.REASONING, *names.WANTED, *names.AROUND))
    mapper = partial(_pair, prompt=prompt, completion=completion, beside=beside)
    return Schema(name=f"{prompt}/{completion}", mapper=mapper, read=read)


def _mapping(name: str, columns: dict[str, str], *, detected: bool = False) -> Schema:
    read = frozenset(column for value in columns.values() for column in _names(value)) | frozenset(names.KEPT)
    return Schema(name=name, mapper=partial(_mapped, columns=columns), read=read, is_mapping=not detected)


def _checked(fields: Fields, file: str, line: int) -> Record:
    messages = fields.messages
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("the last message is not the assistant's")
    for message in messages:
        if message["role"] == "user":
            break
    else:
        raise DataError("no message of the user's")
    if not messages[-1].get("learn", True) and not any(
        turn.get("learn", True) for turn in messages if turn["role"] == "assistant"
    ):
        raise DataError("all turns of the assistant's are left out of training by their weight")
    record: Record = {"id": "", "messages": messages, "origin": {"file": file, "line": line}}
    for name in ("tools", "label", "group", "consent"):
        if value := getattr(fields, name):
            record[name] = value
    if not is_blank(fields.weight):
        record["weight"] = _weight(fields.weight)
    return record


def _weight(value: Json) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < math.inf:
        raise DataError("its weight is not a number of 0 or more")
    return weight


def _finished(fields: Fields, row: JsonObject) -> Fields:
    """Return fields with those that mean the same in every schema."""
    fields.group, fields.consent = (label_of(row[name]) if name in row else "" for name in names.KEPT)
    return fields


def _mapped(row: JsonObject, unread: Unread, columns: dict[str, str]) -> Fields:
    values = {key: _value(row, value) for key, value in columns.items() if key not in ("messages", "tools", "label")}
    system = [values["system"]] if values.get("system") else []
    if "messages" in columns:
        messages = _with_system(read_messages(row[columns["messages"]], unread), system)
    else:
        messages = _with_system(_asked_and_answered(values["prompt"], values["completion"]), system)
    fields = _finished(Fields(messages=messages, weight=values.get("weight")), row)
    if "label" in columns:
        name = columns["label"]
        fields.label = _value(row, name) if "{" in name else label_of(row.get(name))
        if columns.get("completion") == name:
            messages[-1]["content"] = fields.label
    if "tools" in columns and not is_blank(row[columns["tools"]]):
        fields.tools = read_tools(row[columns["tools"]], unread)
    fields.group, fields.consent = values.get("group", fields.group), values.get("consent", fields.consent)
    return fields


def _value(row: JsonObject, value: str) -> str:
    if "{" not in value:
        return text_of(row.get(value))
    return _FIELD.sub(lambda match: text_of(row.get(match[1])), value)


def _asked_and_answered(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _choices_of(row: JsonObject) -> tuple[str, ...]:
    """Return the columns of a question's choices: one of them all, or one each; none where it has no such."""
    if "question" not in row or not any(name in row for name in _CHOSEN_CHOICES):
        return ()
    if column := next((name for name in _CHOICES if not is_blank(row.get(name))), ""):
        is_prose = isinstance(row[column], str) and row[column].lstrip()[:1] not in ("[", "{")
        return () if is_prose else (column,)
    for form in _ONE_CHOICE:
        columns = [form.format(letter) for letter in string.ascii_uppercase[:26]]
        if all(name in row for name in columns[:2]):
            return tuple(name for name in columns if name in row)
    return ()


def _multiple_choice(row: JsonObject, unread: Unread, choices: tuple[str, ...], answer: str) -> Fields:
    """Return a question with lettered choices; the answer is a place, counted from 0, a letter, or a choice's text."""
    items = (
        parse_column(row[choices[0]], "its choices are") if choices[0] in _CHOICES else [row[name] for name in choices]
    )
    called = list[str]()
    if isinstance(items, dict) and isinstance(items.get("text"), list):  # ARC's: texts, and what they are called
        items, called = items["text"], list(map(text_of, items.get("label") or ()))
    if not isinstance(items, (list, tuple)):
        raise DataError("its choices are not a list")
    letters, texts = string.ascii_uppercase[: len(items)], list(map(text_of, items))
    chosen = text_of(label_of(row[answer])).strip()
    called = called or list(letters)
    place = int(chosen) if chosen.isdecimal() and chosen not in called else -1
    if isinstance(row[answer], str) and chosen in texts and 0 <= place != texts.index(chosen):
        raise DataError("its answer may be a choice or the number of one; give its letter")
    place = next((values.index(chosen) for values in (called, texts) if place < 0 and chosen in values), place)
    if not 0 <= place < len(items):
        raise DataError(f"its answer names none of its {len(letters)} choices (a hidden one?)")
    lines, answer = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)], letters[place]
    return _finished(Fields(messages=_asked_and_answered("\n".join([text_of(row["question"]), *lines]), answer)), row)


def _pair(row: JsonObject, unread: Unread, prompt: str, completion: str, beside: tuple[str, ...]) -> Fields:
    check_wanted(row, unread)
    question, answer = row[prompt], row[completion]
    if isinstance(question, dict) and "messages" in question:  # OpenAI's pairs of a preferred answer and another
        account(question, frozenset(("messages", "tools")), unread, f"{prompt}.")
        both = {"tools": question.get("tools"), "functions": row.get("tools")}
        row = {**row, "tools": first_filled(both, names.TOOLS, unread)}
        question = question["messages"]
    turns = _turns(question, "user", unread, [text_of(row[name]) for name in beside if not is_blank(row.get(name))])
    answers = _turns(answer, "assistant", unread, [])
    if completion == "chosen" and answers[0]["role"] != "assistant":  # the chosen is the whole conversation
        turns = []
    if (reasoning := first_filled(row, names.REASONING, unread)) is not None and answers[-1]["role"] == "assistant":
        answers[-1] = {**answers[-1], "reasoning": text_of(reasoning)}
    return _finished(Fields(messages=_framed([*turns, *answers], row, unread), tools=_tools(row, unread)), row)


def _turns(value: Json, role: str, unread: Unread, beside: list[str]) -> list[Message]:
    """Return one side of a pair: messages, or a text and what stands beside it."""
    value = parse_column(value) if _holds_messages(value) else value
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(map(is_message, values)):
        return [{"role": role, "content": "\n\n".join(filter(None, [text_of(value), *beside]))}]
    messages = read_messages(values, unread)
    if beside:
        raise DataError("a context stands beside messages; write it into them")
    return messages


def _whole(row: JsonObject, unread: Unread, column: str) -> Fields:
    if len(row) == 1:
        return Fields(messages=read_messages(row[column], unread))
    label = row.get("label")
    if is_wish(label) or "kto_tag" in row:
        check_wanted(row, unread)
        label = None
    messages = read_messages(row[column], unread)
    chosen = None if column == "chosen" else first_filled(row, names.CHOSEN, unread)
    if chosen is not None and messages and messages[-1]["role"] != "assistant":
        messages = [*messages, *_turns(_best(chosen), "assistant", unread, [])]
    elif chosen is not None:
        unread[next(name for name in names.CHOSEN if row.get(name) == chosen)] += 1
    fields = Fields(messages=_framed(messages, row, unread), tools=_tools(row, unread), label=label_of(label))
    return _finished(fields, row)


def _best(chosen: Json) -> Json:
    """Return the preferred of Gemini's scored completions; any other value as it is."""
    values = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    if not all(isinstance(value, dict) and {"score", "completion"} <= set(value) for value in values):
        return chosen
    return max(values, key=lambda value: float(value["score"]))["completion"]


def _framed(messages: list[Message], row: JsonObject, unread: Unread) -> list[Message]:
    """Return messages with the system text and the history that stand beside them."""
    if (history := first_filled(row, names.HISTORY, unread)) is not None:
        messages = [*_history(parse_column(history, "its history is"), unread), *messages]
    if (system := first_filled(row, names.SYSTEM, unread)) is not None:
        messages = _with_system(messages, [read_system(system, unread)])
    return messages


def _with_system(messages: list[Message], texts: list[str]) -> list[Message]:
    if not texts or not texts[0].strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() == texts[0].strip():
            return messages
        raise DataError("a system text stands beside messages that begin with another one; keep one of them")
    return [{"role": "system", "content": texts[0]}, *messages]


def _history(history: Json, unread: Unread) -> list[Message]:
    if isinstance(history, (list, tuple)) and all(map(is_message, history)):
        return read_messages(list(history), unread)
    out: list[Message] = []
    for pair in history if isinstance(history, (list, tuple)) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError("its history is neither pairs of question and answer nor messages")
        out += _asked_and_answered(text_of(pair[0]), text_of(pair[1]))
    return out


def _tools(row: JsonObject, unread: Unread) -> list[JsonObject]:
    tools = first_filled(row, names.TOOLS, unread)
    return [] if tools is None else read_tools(tools, unread)
