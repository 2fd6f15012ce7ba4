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
    read_tools,
    tools_of,
    with_system,
)
from mixtune.sanitize.reading.message_forms import is_message, read_messages
from mixtune.sanitize.reading.table_cells import read_cells
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, label_of, parse_column, text_of

COLUMNS = ("prompt", "completion", "system", "label", "id", "group", "consent", "weight", "messages", "tools")
"""What a column mapping may name; a value is a column, or a template with `{column}` in it."""
_FIELD = re.compile(r"\{([^{}]+)\}")
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "contents")
"""Columns of a whole conversation."""
_PAIRED = """
instruction: output response completion answer chosen chosen_response
input: output chosen preferred_output
prompt: completion response answer output chosen chosen_response
question: answer response chosen answers
query: response answer answers
problem: solution
input_text: output_text
inputs: targets
user: assistant
human: gpt assistant
message: response
document: summary
article: summary
"""
PAIRS = tuple(
    (question, answer)
    for question, _, row in (line.partition(":") for line in _PAIRED.split("\n") if line)
    for answer in row.split()
)
"""Columns of a question and its answer, as published data sets name them; the first pair that a row has is taken."""
LABELS = ("label_text", "label_name", "label", "category", "intent", "class")
"""Columns of a class, beside a `text`; its name goes before its number."""


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
        row = read_cells(row)
        if self.folds:
            row = _without_twins(row, [fold(name) for name in row])
        if not row.keys() <= self.read:
            row = row if self.is_mapping else self._renamed(row)
            account(row, self.read, unread, refuses=not self.is_mapping)
        return _checked(self.mapper(row, unread), file, line)

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
    row = read_cells(row)
    if schema := _detect(row):
        return schema
    if schema := _detect({fold(name): value for name, value in row.items()}):
        return replace(schema, folds=True)
    for column in CONVERSATIONS:
        if isinstance(text := row.get(column), str) and text.lstrip().startswith(("[{'", "{'")):
            raise DataError(f"{column} is not JSON (single quotation marks, as Python prints; write it by json.dumps)")
    raise DataError(
        f'no known schema in columns {", ".join(row)}; say which is which, such as {{"prompt": COLUMN, '
        '"completion": COLUMN}; docs/data.md has the forms that are detected'
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
    if choices := row_answers.choices_of(row):
        answer = next(name for name in row_answers.RIGHT_CHOICE if name in row)
        read = frozenset(
            ("question", *choices, *row_answers.RIGHT_CHOICE, *names.CONTEXTS, *names.WANTED, *names.AROUND)
        )
        name = f"question/{choices[0]}/{answer}"
        return Schema(name=name, mapper=partial(_multiple_choice, choices=choices, answer=answer), read=read)
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            return _pair_schema(prompt, completion)
    for label in LABELS:
        if "text" in row and label in row:
            return _pair_schema("text", label)
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
    read = frozenset((column, "weight", *names.CONTEXTS, *names.WANTED, *names.AROUND))
    read |= frozenset() if column == "chosen" else frozenset(names.CHOSEN)
    return Schema(name=name, mapper=partial(_whole, column=column), read=read)


def _pair_schema(prompt: str, completion: str) -> Schema:
    beside = tuple(name for name in names.BESIDE if name not in (prompt, completion))
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


def _weight(value: Json) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < math.inf:
        raise DataError("its weight is not a number of 0 or more")
    return weight


def _mapped(row: JsonObject, unread: Unread, columns: dict[str, str]) -> Fields:
    values = {key: _value(row, value) for key, value in columns.items() if key not in ("messages", "tools", "label")}
    system = [values["system"]] if values.get("system") else []
    if "messages" in columns:
        messages = with_system(read_messages(row[columns["messages"]], unread), system)
    else:
        messages = with_system(question_and_answer(values["prompt"], values["completion"]), system)
    fields = finished(Fields(messages=messages, weight=values.get("weight")), row)
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


def _multiple_choice(row: JsonObject, unread: Unread, choices: tuple[str, ...], answer: str) -> Fields:
    check_wanted(row, unread, labels=True)
    if not (is_wish(row.get("label")) or is_blank(row.get("label"))):
        unread["label"] += 1
    question, letter = row_answers.letter_choices(row, choices, answer)
    contexts = [text_of(row[name]) for name in names.CONTEXTS if name not in choices and not is_blank(row.get(name))]
    messages = question_and_answer("\n\n".join([*contexts, question]), letter)
    return finished(Fields(messages=framed(messages, row, unread), tools=tools_of(row, unread)), row)


def _pair(row: JsonObject, unread: Unread, prompt: str, completion: str, beside: tuple[str, ...]) -> Fields:
    is_class = prompt == "text"
    check_wanted({**row, completion: None, "label": None} if is_class else row, unread)
    question, answer = row[prompt], row[completion]
    if isinstance(question, dict) and "messages" in question:  # OpenAI's pairs of a preferred answer and another
        account(question, frozenset(("messages", "tools")), unread, f"{prompt}.")
        both = {"tools": question.get("tools"), "functions": row.get("tools")}
        row = {**row, "tools": first_filled(both, names.TOOLS, unread)}
        question = question["messages"]
    contexts = [text_of(row[name]) for name in beside if not is_blank(row.get(name))]
    turns = _asked(question, prompt, unread, contexts)
    tools = tools_of(row, unread)
    if is_class:
        check_decision(row, unread)
        unread.update({"label"} if completion != "label" and not is_blank(row.get("label")) else ())
        answer = label_of(row_answers.sole_answer(answer, completion))
    turns_after = _answered(answer, completion, unread, calls=bool(tools))
    if completion == "chosen" and turns_after[0]["role"] != "assistant":  # the chosen is the whole conversation
        turns = []
    last = turns_after[-1]
    if (reasoning := names.thought_of(row, unread)) is not None and last["role"] == "assistant":
        turns_after[-1] = {**last, "reasoning": text_of(reasoning)}
    label = answer if is_class else ""
    return finished(Fields(messages=framed([*turns, *turns_after], row, unread), tools=tools, label=label), row)


def _asked(value: Json, name: str, unread: Unread, contexts: list[str]) -> list[Message]:
    """Return the question of a pair: messages, or a text and what stands beside it."""
    if (messages := _messages_in(value, unread)) is None:
        text = text_of(row_answers.sole_text(value, name))
        return [{"role": "user", "content": "\n\n".join(filter(None, [text, *contexts]))}]
    if contexts:
        raise DataError("a context stands beside messages; write it into them")
    return messages


def _answered(value: Json, name: str, unread: Unread, *, calls: bool = False) -> list[Message]:
    """Return the answer of a pair: messages, calls of tools, or a text."""
    if (messages := _messages_in(value, unread)) is not None:
        return messages
    if name == "answers" and calls and row_answers.are_calls(called := parse_column(value)):
        return read_messages([{"role": "assistant", "content": "", "tool_calls": called}], unread)
    if name == "chosen" and isinstance(value, (int, float)):
        raise DataError("chosen is the number of an answer; write the answer itself")
    return [{"role": "assistant", "content": text_of(row_answers.sole_answer(value, name))}]


def _messages_in(value: Json, unread: Unread) -> list[Message] | None:
    """Return the messages of one side of a pair; None where it is a text."""
    value = parse_column(value) if _holds_messages(value) else value
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return read_messages(values, unread) if values and all(map(is_message, values)) else None


def _whole(row: JsonObject, unread: Unread, column: str) -> Fields:
    if len(row) == 1:
        return Fields(messages=read_messages(row[column], unread))
    check_wanted(row, unread, labels=True)
    label = None if is_wish(row.get("label")) else row.get("label")
    messages = read_messages(row[column], unread)
    if column != "chosen" and (chosen := first_filled(row, names.CHOSEN, unread)) is not None:
        name = next(name for name in names.CHOSEN if row.get(name) == chosen)
        messages = _with_chosen(messages, _answered(_best(chosen), name, unread), name, unread)
    _check_contexts(row, messages)
    fields = Fields(messages=framed(messages, row, unread), tools=tools_of(row, unread), weight=row.get("weight"))
    if not isinstance(label, (list, tuple, dict)):
        fields.label = label_of(label)
    elif not is_blank(label):
        unread["label"] += 1
    return finished(fields, row)


def _with_chosen(messages: list[Message], chosen: list[Message], name: str, unread: Unread) -> list[Message]:
    """Return a conversation with the wanted answer behind it, which may repeat the conversation or its last turn."""
    if messages and messages[-1]["role"] == "assistant":
        if chosen not in (messages, messages[-1:]):
            unread[name] += 1
        return messages
    if chosen[0]["role"] == "assistant":
        return [*messages, *chosen]
    if chosen[: len(messages)] == messages:
        return chosen
    if chosen[:1] == messages[-1:]:
        return [*messages[:-1], *chosen]
    raise DataError(f"{name} does not go on from the conversation beside it; keep one of them")


def _check_contexts(row: JsonObject, messages: list[Message]) -> None:
    """Check that what a question is about stands in the messages, too, where it has a column."""
    for name in names.CONTEXTS:
        value = row.get(name)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text = text_of(item).strip()
            if text and not any(text in message["content"] for message in messages):
                ways = f"write it into them, or give columns={{'messages': ..., 'system': {name!r}}}"
                raise DataError(f"{name}: a context stands beside messages; {ways}")


def _best(chosen: Json) -> Json:
    """Return the preferred of Gemini's scored completions; any other value as it is."""
    values = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    if not all(isinstance(value, dict) and {"score", "completion"} <= set(value) for value in values):
        return chosen
    return max(values, key=lambda value: float(value["score"]))["completion"]
