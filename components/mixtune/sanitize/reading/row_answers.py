"""What of a row is its question and its answer: messages, one text of several, the right choice, calls of tools."""

import re
import string

from mixtune.benchmark_files import PASSAGE_FIELDS, read_passages
from mixtune.errors import DataError
from mixtune.records import Message
from mixtune.sanitize.reading.exports.transcripts import asked_so_far
from mixtune.sanitize.reading.fields import CHOICES, CONTEXTS, TABLES, stand_alone
from mixtune.sanitize.reading.message_forms import is_message, is_message_of, is_part, read_messages
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
from mixtune.sanitize.rules.record_texts import Refused

RIGHT_CHOICE = ("answer", "answerKey", "answer_key")
_ONE_CHOICE = ("{}", "option_{}", "choice_{}")
"""Columns of each choice by its letter."""
_NESTED = frozenset(TABLES["logged"]["around_texts"].split())
"""Keys under which an object holds a text, beside what is said about it."""
_ASKED = frozenset(TABLES["logged"]["around_questions"].split())
"""Keys under which an object that is asked holds the question, as traces have them."""
_TURN_MARK = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")
"""What NeMo's data have between the turns of a conversation in one text."""
_CALL = frozenset(("name", "arguments"))
_MARKED = re.compile(
    r"(?s)\s*<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.*)<\|end_of_solution\|>\s*"
)
_ASKING_MARKS = re.compile(
    r"(?s)\s*Your role as an assistant involves .*<\|begin_of_thought\|>.*<\|end_of_solution\|>"
    r"(?:[\s`]*Now, try to [^.\n]*)?\s*"
)
"""The system text that asks for these marks."""
_RATED = frozenset(("intent", "knowledge", "difficulty"))
"""Columns in which Magpie's data say what a question asks for."""
_PLACE = re.compile(r"(?<![$\w^\\{}])(?:\{\{\s*([A-Za-z]\w*)\s*\}\}|\{([A-Za-z]\w*)\})(?!\})")
_CODE = re.compile(r"`|\bf[\"']|\.format\(")
_SEPARATOR, _ARROW, _STOP = (re.compile(TABLES["former"][name]) for name in ("separators", "arrow", "stops"))
_FORMER = "separators of OpenAI's former prompts and completions"
_LONG = 40
"""Characters of a text that no question holds by chance."""


def without_marks(messages: list[Message], unread: Unread) -> list[Message]:
    """Return messages without OpenThoughts' marks: what stands between them is a thought and an answer.

    A system text that asks for nothing but these marks is left out, and counted.
    """
    if not any("<|begin_of_" in message["content"][:24] for message in messages):
        return messages
    out = [_without_marks(message) for message in messages]
    if out == messages or out[0]["role"] != "system" or not _ASKING_MARKS.fullmatch(out[0]["content"]):
        return out
    unread["a system text about OpenThoughts' marks"] += 1
    return out[1:]


def _without_marks(message: Message) -> Message:
    is_answer = message["role"] == "assistant" and "reasoning" not in message
    if not (match := _MARKED.fullmatch(message["content"]) if is_answer else None):
        return message
    return {**message, "reasoning": match[1].strip(), "content": match[2].strip()}


def filled(row: JsonObject, prompt: str, completion: str, beside: tuple[str, ...], unread: Unread) -> JsonObject:
    """Return a row whose question has in its places what it is about, which then stands nowhere else."""
    places = [name for name in _places(row[prompt], str(row[completion])) if name in beside]
    texts = {name: text for name in places if (text := "\n\n".join(contexts_of(row, (name,), unread)))}
    if not texts:
        return row
    question = _PLACE.sub(lambda match: texts.get(match[1] or match[2], match[0]), row[prompt])
    return {**row, **dict.fromkeys(texts), prompt: question}


def check_filled(messages: list[Message], others: JsonObject) -> None:
    """Check that no question or system text has a place for another column of its row, which nobody filled."""
    asked_texts = [
        turn["content"] for turn in messages if turn["role"] in ("user", "system") and "{" in turn["content"]
    ]
    answers = " ".join(turn["content"] for turn in messages if asked_texts and turn["role"] == "assistant")
    for name in (name for text in asked_texts for name in _places(text, answers)):
        if not (is_blank(others.get(name)) or stand_alone({name: None})):
            raise DataError(f"{name}: a question has an empty place for it, {{{name}}}; fill it in, or give columns")


def _places(text: Json, answer: str) -> list[str]:
    """Return the names in braces in a text that is no code, but for those that the answer has, too."""
    if not isinstance(text, str) or "{" not in text or _CODE.search(text):
        return []
    names = [match[1] or match[2] for match in _PLACE.finditer(text)]
    return [name for name in names if f"{{{name}}}" not in answer]


def contexts_of(row: JsonObject, names: tuple[str, ...], unread: Unread, question: Json = "") -> list[str]:
    """Return what a question is about, as texts; what the question quotes itself is left out.

    Raises:
        DataError: It is messages.
    """
    texts, beside = list[str](), Unread()
    for name in names:
        value = row.get(name)
        if is_blank(value) or is_null_text(value):
            continue
        if name == "knowledge" and row.keys() >= _RATED:  # Magpie says what it takes to answer
            unread[name] += 1
        elif isinstance(value, list) and all(map(is_message_of, value)):
            raise DataError(f"{name} holds messages beside a question; name what was said before it `history`")
        elif not (isinstance(question, str) and isinstance(value, str) and _quotes(question, value)):
            texts.append(passages(value, name, beside))
    unread.update(beside.keys())
    return texts


def without_separators(question: Json, answer: Json, unread: Unread) -> tuple[Json, Json]:
    """Return a prompt and its completion without what OpenAI's former tool put around all of them.

    A separator between blank lines is surely one; an arrow behind a line, or a stop sequence, where the completion
    begins with one space, as that tool asked for.
    """
    if not isinstance(question, str) or not isinstance(answer, str):
        return question, answer
    is_told = answer[:1] == " " and not answer[1:2].isspace()
    has_arrow = is_told and bool(_ARROW.match(question))
    if not (_SEPARATOR.search(question) or has_arrow or (is_told and _STOP.search(answer))):
        return question, answer
    unread[_FORMER] += 1
    answer = _STOP.sub("", answer).rstrip()
    return _SEPARATOR.sub("", question.removesuffix(" ->") if has_arrow else question), answer[is_told:]


def _quotes(question: str, text: str) -> bool:
    """Return whether a question quotes a text: one that is long, or that has lines of its own there."""
    text = text.strip()
    return text in question and (len(text) > _LONG or f"\n{text}\n" in f"\n{question}\n")


def passages(value: Json, name: str, unread: Unread) -> str:
    """Return what a question is about as text: each passage behind its title; any other object as JSON."""
    if (listed := read_passages(value, lambda field, _: field in PASSAGE_FIELDS)) is None:
        is_list = isinstance(value, (list, tuple))
        return "\n\n".join(passages(item, name, unread) for item in value) if is_list else text_of(value)
    unread.update({f"{name}.{other}" for passage in listed for other in passage.beside})
    return "\n\n".join("\n".join(filter(None, [passage.title, passage.text])) for passage in listed)


def check_contexts(row: JsonObject, messages: list[Message], unread: Unread) -> None:
    """Check that what a question is about stands in the messages, too, where it has a column."""
    for name in () if row.keys().isdisjoint(CONTEXTS) else CONTEXTS:
        if name == "knowledge" and row.keys() >= _RATED and not is_blank(row[name]):
            unread[name] += 1
            continue
        value = row.get(name)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text = text_of(item).strip()
            if text and not any(text in message["content"] for message in messages):
                ways = f"write it into them, or give columns={{'messages': ..., 'system': {name!r}}}"
                raise DataError(f"{name}: a context stands beside messages; {ways}")


def asked(value: Json, name: str, unread: Unread, contexts: list[str]) -> list[Message]:
    """Return the question of a pair: messages, or a text and what stands beside it."""
    if (messages := messages_in(value, unread)) is None:
        if isinstance(value, dict) and not _ASKED.isdisjoint(value):
            raise DataError(f"{name} is an object around a text; write the text alone, or the object as JSON text")
        text = text_of(sole_text(value, name))
        if "<extra_id_1>" in text:
            return _marked_turns(text, name, contexts)
        messages = read_messages(asked_so_far(text), unread)
    if not messages:
        return [{"role": "user", "content": "\n\n".join(filter(None, [text, *contexts]))}]
    if contexts:
        raise DataError("a context stands beside messages; write it into them")
    return messages


def _marked_turns(text: str, name: str, contexts: list[str]) -> list[Message]:
    """Return the messages of a text with NeMo's marks between its turns, of which the last is a question."""
    first, *pieces = _TURN_MARK.split(text)
    speakers = ["User", *pieces[::2]]
    if contexts or speakers != (["User", "Assistant"] * len(speakers))[: len(speakers)] or speakers[-1] != "User":
        raise DataError(f"{name} holds several turns behind <extra_id_1>; write them as `messages`")
    texts = zip(speakers, [first, *pieces[1::2]], strict=True)
    return [{"role": speaker.lower(), "content": content} for speaker, content in texts]


def answered(value: Json, name: str, unread: Unread, *, calls: bool = False) -> list[Message]:
    """Return the answer of a pair: messages, calls of tools, or a text."""
    if (messages := messages_in(value, unread)) is not None:
        return messages
    if name == "answers" and calls and are_calls(called := parse_column(value)):
        return read_messages([{"role": "assistant", "content": "", "tool_calls": called}], unread)
    if name == "answers" and calls and called == []:
        raise Refused("an empty list of calls, which is no answer")
    if name == "chosen" and isinstance(value, (int, float)):
        raise DataError("chosen is the number of an answer; write the answer itself")
    return [{"role": "assistant", "content": text_of(sole_answer(value, name))}]


def messages_in(value: Json, unread: Unread) -> list[Message] | None:
    """Return the messages of one side of a pair; None where it is a text."""
    value = parse_column(value) if holds_messages(value) else value
    value = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return read_messages(values, unread) if values and all(map(is_message, values)) else None


def holds_messages(value: Json) -> bool:
    """Return whether a value is a list of messages, or one as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = parse_column(value)
        except DataError:
            return False
    return isinstance(value, (list, tuple)) and bool(value) and is_message(value[0])


def choices_of(row: JsonObject) -> tuple[str, ...]:
    """Return the columns of a question's choices: one of them all, or one each; none where it has no such."""
    if "question" not in row or not any(name in row for name in RIGHT_CHOICE):
        return ()
    if column := next((name for name in CHOICES if not is_blank(row.get(name))), ""):
        is_prose = isinstance(row[column], str) and row[column].lstrip()[:1] not in ("[", "{")
        return () if is_prose else (column,)
    for form in _ONE_CHOICE:
        columns = [form.format(letter) for letter in string.ascii_uppercase[:26]]
        if all(name in row for name in columns[:2]):
            return tuple(name for name in columns if name in row)
    return ()


def letter_choices(row: JsonObject, choices: tuple[str, ...], answer: str) -> tuple[str, str]:
    """Return a question with lettered choices, and the letter of the right one.

    The answer is a place, counted from 0, a letter, or a choice's text.

    Raises:
        DataError: The choices are no list, or the answer is none of them.
    """
    texts, called = _choices(row, choices)
    letters = string.ascii_uppercase[: len(texts)]
    chosen = text_of(label_of(row[answer])).strip()
    called = called or list(letters)
    place = int(chosen) if chosen.isdecimal() and chosen not in called else -1
    if isinstance(row[answer], str) and chosen in texts and 0 <= place != texts.index(chosen):
        raise DataError("its answer may be a choice or the number of one; give its letter")
    place = next((values.index(chosen) for values in (called, texts) if place < 0 and chosen in values), place)
    if not 0 <= place < len(texts):
        raise DataError(f"its answer names none of its {len(letters)} choices (a hidden one?)")
    lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    return "\n".join([text_of(row["question"]), *lines]), letters[place]


def _choices(row: JsonObject, columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the choices' texts, and what they are called where the row says so."""
    if columns[0] not in CHOICES:
        return [text_of(row[name]) for name in columns], []
    items = parse_column(row[columns[0]], "its choices are")
    if isinstance(items, dict) and isinstance(items.get("text"), list):  # ARC's: texts, and what they are called
        return list(map(text_of, items["text"])), list(map(text_of, items.get("label") or ()))
    if isinstance(items, dict) and items:  # MedQA's: texts by what they are called
        return list(map(text_of, items.values())), list(items)
    if not isinstance(items, (list, tuple)):
        raise DataError("its choices are not a list")
    return list(map(text_of, items)), []


def sole_answer(value: Json, name: str) -> Json:
    """Return the one answer of a column, which may hold a list of them, as SQuAD's does.

    Raises:
        DataError: Several, none, or an object around a text: it is not sure what is to be learned.
    """
    if isinstance(value, dict) and isinstance(value.get("text"), (list, tuple)):
        value = value["text"]
    if isinstance(value, (list, tuple)):
        texts = list(dict.fromkeys(map(text_of, value)))
        if len(texts) != 1:
            raise DataError(f"{name} holds {len(texts) or 'no'} answers; write the one that is to be learned")
        value = value[0]
    return sole_text(value, name)


def sole_text(value: Json, name: str) -> Json:
    """Return the value of a text column.

    Raises:
        DataError: An object around a text, or a list of numbers: it is not sure what of it is the text.
    """
    items = value if isinstance(value, (list, tuple)) else [value]
    if items and all(map(is_part, items)):  # also where they stand as JSON text
        raise DataError(f"{name} is an object around a text; write the text alone, or a whole message")
    if any(map(_is_around_text, items)):
        raise DataError(f"{name} is an object around a text; write the text alone, or the object as JSON text")
    if len(items) > 1 and all(type(item) is int for item in items):
        raise DataError(f"{name} is a list of numbers (ids of tokens?); write its text")
    return value


def _is_around_text(value: Json) -> bool:
    """Return whether an object holds a text beside what is said about it, or an object that does."""
    return isinstance(value, dict) and (not _NESTED.isdisjoint(value) or any(map(_is_around_text, value.values())))


def are_calls(value: Json) -> bool:
    """Return whether a value is a list of tool calls, as xLAM's answers are."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(item, dict) and item.keys() >= _CALL for item in value)
    )


def with_chosen(messages: list[Message], chosen: list[Message], name: str, unread: Unread) -> list[Message]:
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


def best_of(chosen: Json) -> Json:
    """Return the preferred of Gemini's scored completions; any other value as it is."""
    values = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    if not all(isinstance(value, dict) and {"score", "completion"} <= set(value) for value in values):
        return chosen
    return max(values, key=lambda value: float(value["score"]))["completion"]
