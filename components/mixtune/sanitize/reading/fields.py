"""Names of fields: which say the same in every schema, which mean nothing for training, which cannot be honoured."""

import re
import tomllib
from collections import Counter
from functools import lru_cache
from pathlib import Path

from mixtune.errors import DataError
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, parse_if_json, printed
from mixtune.sanitize.rules.record_texts import Refused

TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
_COLUMNS = {what: tuple(names.split()) for what, names in TABLES["columns"].items()}
CONVERSATIONS, SYSTEM, CONTEXTS = _COLUMNS["conversations"], _COLUMNS["system"], _COLUMNS["contexts"]
REASONING, CALLS, TOOLS = _COLUMNS["reasoning"], _COLUMNS["calls"], _COLUMNS["tools"]
HISTORY, CHOSEN, ANSWERS = _COLUMNS["history"], _COLUMNS["chosen"], _COLUMNS["answers"]
CHOICES, LABELS, TURNS = _COLUMNS["choices"], _COLUMNS["labels"], _COLUMNS["turns"]
JUDGING, _MEANINGLESS, _SWITCHES = (frozenset(_COLUMNS[what]) for what in ("judging", "meaningless", "switches"))
_PARENTS = frozenset(_COLUMNS["parents"])
_GOES_ON = _PARENTS | {"children"}
BESIDE = ("input", *CONTEXTS, "documents", *CHOICES)
"""Columns that a question goes on in."""
LEARN: dict[str, bool | None] = {
    **{name: is_learned == "true" for is_learned, names in TABLES["learned"].items() for name in names.split()},
    "mask": None,
}
"""Fields that leave a turn out of training, and what says that it is learned; None: data sets differ in that."""
KEPT = ("group", "consent")
"""Columns that mean the same in whatever schema; a class is a label only where a schema or a mapping says so."""
AROUND = (*SYSTEM, *TOOLS, *HISTORY, *KEPT)
WANTED = {name: truth == "true" for truth, names in TABLES["wanted"].items() for name in names.split()}
"""Columns that may say whether an answer is wanted, each with the value that says it is not."""
_GONE = {name: truth == "true" for truth, names in TABLES["unwanted_turns"].items() for name in names.split()}
_GONE_OR_UNWANTED = _GONE | WANTED
PAIRS = tuple((question, answer) for question, answers in TABLES["pairs"].items() for answer in answers.split())
"""Columns of a question and its answer; the first pair that a row has is taken."""
ENDS, _CUT_OFF = (frozenset(TABLES["ends"][name].split()) for name in ("fields", "cut_off"))
"""Fields that say how an answer ended, and what they say of one that was cut off."""
_MEDIA = re.compile(
    "(?:(?:input|question|prompt|query|user|context)_)?(?:image|img|picture|photo|audio|video|media)s?"
    "(?:_(?:path|url|uri|file|id|name|data|base64|bytes)s?)?|pixel_values|speech|(?:file|inline)_data"
)
_CONTAINER = re.compile(r"(?:docker://)?[\w.-]+(?::\d+)?(?:/[\w.-]+)+(?::[\w.-]+|@sha256:\w+)")
"""The image of a container, as agents' traces have it."""
_REFUSED = TABLES["refused"] | dict.fromkeys(
    TABLES["refused_answers"]["fields"].split(), TABLES["refused_answers"]["way"]
)
_RATINGS, _BAD = (frozenset(TABLES["rated"][name].split()) for name in ("fields", "bad"))
"""Fields in which people say in a word what they think of an answer, and the words for a bad one."""
_OTHER_SIDE = {role: re.compile(names) for role, names in TABLES["other_side"].items()}
"""Names that only the other side has, by role."""
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_DECISIONS = {"accept": True, "reject": False, "ignore": False}
"""What Prodigy writes as `answer` beside a text and its class."""


@lru_cache(maxsize=2**12)
def fold(name: str) -> str:
    """Return a column's name as it is compared: without case and outer spaces, spaces and humps inside as `_`."""
    return re.sub(r"[\s-]+|(?<=[a-z])(?=[A-Z](?:[a-z]|[A-Z]))", "_", name.strip()).lower()


def account(fields: JsonObject, read: frozenset[str], unread: Unread, place: str = "", *, refuses: bool = True) -> None:
    """Count the fields of a row, or of a `place` in it, that are there and are not read.

    Raises:
        DataError: One has a meaning that cannot be honoured, and `refuses`.
    """
    for name, value in fields.items():
        if name in read or is_blank(value):
            continue
        folded = fold(name)
        if refuses and _MEDIA.fullmatch(folded) and not (isinstance(value, str) and _CONTAINER.fullmatch(value)):
            raise DataError(
                f"{place}{name}: images, audio and video are not read; leave out such rows, or give columns"
            )
        if refuses and (way := _REFUSED.get(folded) or _REFUSED.get(place + folded)):
            raise DataError(f"{place}{name}: {way}")
        if folded and folded not in _MEANINGLESS and not folded.startswith(("unnamed:", "__index_level_")):
            unread[f"{place}{name}"] += 1


def first_filled(row: JsonObject, names: tuple[str, ...], unread: Unread, place: str = "") -> Json:
    """Return the first value of some fields that says something, or None; others that differ are counted as unread."""
    filled = [name for name in names if name in row and not is_blank(row[name])]
    for name in filled[1:]:
        if row[name] != row[filled[0]]:
            unread[f"{place}{name}"] += 1
    return row[filled[0]] if filled else None


def thought_of(fields: JsonObject, unread: Unread, place: str = "") -> Json:
    """Return the thought among some fields, or None; what only says whether or how much was thought is unread."""
    switches = [name for name in REASONING if name in fields and str(fields[name]).strip().lower() in _SWITCHES]
    unread.update(f"{place}{name}" for name in switches)
    return first_filled(fields, tuple(name for name in REASONING if name not in switches), unread, place)


def check_wanted(row: JsonObject, unread: Unread, *, labels: bool = False) -> None:
    """Refuse an answer that is marked as unwanted, as data for KTO do; raise DataError where that is not sure.

    `unread` counts the columns that say something else; with `labels`, `label` is a class where it is neither true nor
    false.
    """
    check_end(row)
    check_rated(row)
    for name in WANTED.keys() & row.keys():
        value = row[name]
        truth = _truth(value)
        if name == "label" and not is_wish(value):
            if truth is not None and not labels:
                raise DataError("label is 0 or 1 beside an answer; give columns, or true and false for what is wanted")
            truth = None
        if truth is WANTED[name]:
            raise Refused(f"unwanted answer ({name} is {str(truth).lower()})")
        if truth is None and not is_blank(value) and not (labels and name == "label"):
            unread[name] += 1


def check_end(fields: JsonObject) -> None:
    """Refuse an answer that was cut off."""
    if fields.keys().isdisjoint(ENDS):
        return
    end = next((str(fields[name]).lower() for name in ENDS if fields.get(name)), "")
    if end in _CUT_OFF:
        raise Refused(f"an answer that was cut off ({end})")


def check_rated(fields: JsonObject) -> None:
    """Refuse an answer that people called bad in a word, or in an object around it, as Dify has it."""
    for name in _RATINGS & fields.keys():
        value = parse_if_json(printed(fields[name])) if isinstance(fields[name], str) else fields[name]
        word = value.get("rating") if isinstance(value, dict) else value
        if isinstance(word, str) and fold(word) in _BAD:
            raise Refused(f"unwanted answer ({name} is {fold(word)})")


def check_alone(row: JsonObject) -> None:
    """Check that a question, but for the first, number 0, does not go on from others, which its row does not hold."""
    if name := next((name for name in TURNS if not is_blank(row.get(name)) and str(row[name]) not in ("0", "0.0")), ""):
        ways = "put each conversation together as `messages`, or give columns"
        raise DataError(f"{name}: a turn of a conversation stands without those before; {ways}")


def stand_alone(row: JsonObject, *columns: str) -> bool:
    """Return whether a row has nothing but these columns, and what means nothing: no question can lie elsewhere."""
    return {fold(name) for name in row} <= {*columns, *_MEANINGLESS}


def goes_on(turn: Json) -> bool:
    """Return whether a turn has a field with the one that it goes on from."""
    return isinstance(turn, dict) and not _GOES_ON.isdisjoint(turn)


def check_linear(turns: list[Json]) -> None:
    """Check that no two turns go on from the same one, as branches of a tree do.

    Where all of them name the same one, it is what their thread belongs to.
    """
    origins = [
        (name, str(turn[name]))
        for turn in filter(goes_on, turns)
        if (name := next((name for name in turn if name in _PARENTS and not is_blank(turn[name])), ""))
    ]
    if any(isinstance(turn, dict) and len(turn.get("children") or ()) > 1 for turn in turns):
        raise DataError("messages.children: two messages go on from the same one; write one branch alone")
    parents = Counter(parent for _, parent in origins)
    if len(parents) == 1 and len(origins) == len(turns):
        return
    if name := next((name for name, parent in origins if parents[parent] > 1), ""):
        raise DataError(f"messages.{name}: two messages go on from the same one; write one branch alone")


def check_turn(turn: JsonObject, role: str, *, is_learned: bool) -> None:
    """Refuse a turn that was for colleagues alone or is gone, and a learned answer that is unwanted or was cut off."""
    is_answer = role == "assistant" and is_learned
    unwanted = _GONE_OR_UNWANTED if is_answer else _GONE if role != "system" else {}
    for name, value in turn.items():
        is_class = (folded := fold(name)) == "label" and not is_wish(value)
        if folded in unwanted and _truth(value) is unwanted[folded] and not is_class:
            raise Refused(f"unwanted turn (messages.{folded} is {str(unwanted[folded]).lower()})")
    if (
        role in _OTHER_SIDE
        and isinstance(speaker := turn.get("name"), str)
        and _OTHER_SIDE[role].fullmatch(fold(speaker))
    ):
        ways = "take the chat as the other agent keeps it, or write who asks as user"
        raise DataError(f"messages.name: the {role} has a name of the other side, as AutoGen keeps chats; {ways}")
    if is_answer:
        check_end(turn)
        check_rated({fold(name): value for name, value in turn.items()})
        if turn.get("status") == "incomplete":
            raise Refused("an answer that was cut off (incomplete)")


def check_decision(row: JsonObject, unread: Unread) -> None:
    """Refuse a class that was rejected or passed over when it was assigned by hand."""
    answer = str(row.get("answer") or "").strip().lower()
    is_accepted = _DECISIONS.get(answer)
    if is_accepted is False:
        raise Refused(f"unwanted class (answer is {answer})")
    if answer and is_accepted is None:
        unread["answer"] += 1


def is_wish(label: Json) -> bool:
    """Return whether a label says that an answer is wanted or not, and is no class."""
    return isinstance(label, bool) or (isinstance(label, str) and label.strip().lower() in ("true", "false"))


def _truth(value: Json) -> bool | None:
    return _TRUTHS.get(str(value).strip().lower()) if isinstance(value, (bool, int, float, str)) else None
