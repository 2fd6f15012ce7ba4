"""Conversations that are trees: of several continuations one is the conversation, the others are never learned."""

from collections.abc import Callable

from mixtune.errors import DataError
from mixtune.sanitize.reading.values import Json, JsonObject
from mixtune.sanitize.rules.record_texts import Refused

OTHERS = "branches beside the conversation"
"""Name under which rows with such branches are counted."""
_STOPPED = ("aborted_low_grade", "halted_by_moderator")
"""States of OpenAssistant's trees that were given up."""
_OF_NODE = ("replies", "rank", "parent_id")


def path_to(nodes: dict[str, JsonObject], leaf: Json, parent: str) -> list[JsonObject]:
    """Return the nodes from the root to a leaf; `parent` is the field with the id of the node before.

    Raises:
        DataError: There is no such leaf, or its path runs in a circle.
    """
    if str(leaf) not in nodes:
        raise DataError("the end of its conversation is not among its messages")
    path, place = list[JsonObject](), str(leaf)
    while place in nodes:
        if len(path) == len(nodes):
            raise DataError("its messages follow one another in a circle")
        path.append(nodes[place])
        place = str(nodes[place].get(parent))
    return path[::-1]


def is_tree(prompt: Json) -> bool:
    """Return whether a value is a message of OpenAssistant's, with the replies to it."""
    return isinstance(prompt, dict) and isinstance(prompt.get("replies"), (list, tuple)) and "role" in prompt


def best_replies(row: JsonObject) -> JsonObject:
    """Return a tree of OpenAssistant's as the conversation of its best answers.

    Where several answers are not ranked, the conversation ends.

    Raises:
        Refused: It was given up, or no answer in it is known to be the best.
    """
    if row.get("tree_state") in _STOPPED:
        raise Refused(f"a tree that was given up ({row['tree_state']})")
    messages, has_others = list[JsonObject](), False
    node: JsonObject | None = row["prompt"]
    while node is not None:
        messages.append({name: value for name, value in node.items() if name not in _OF_NODE})
        replies = [reply for reply in node.get("replies") or () if not _is_gone(reply)]
        node = _best(replies)
        has_others |= len(replies) > (node is not None)
    about = {name: value for name, value in row.items() if name not in ("prompt", "tree_state")}
    return {**about, **({OTHERS: True} if has_others else {}), "messages": until_answer(messages, _is_answer)}


def until_answer(messages: list[JsonObject], is_answer: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """Return messages until the last one that is to be learned.

    Raises:
        Refused: There is none.
    """
    places = [place for place, message in enumerate(messages) if is_answer(message)]
    if not places:
        raise Refused("a conversation without an answer to learn")
    return messages[: places[-1] + 1]


def _is_answer(message: JsonObject) -> bool:
    return message.get("role") == "assistant"


def _is_gone(reply: JsonObject) -> bool:
    return reply.get("deleted") is True or reply.get("review_result") is False


def _best(replies: list[JsonObject]) -> JsonObject | None:
    """Return the best of some replies: of answers by rank, if any has one; of questions the first that is answered."""
    if not replies:
        return None
    if len(replies) == 1:
        return replies[0]
    if not _is_answer(replies[0]):
        return next((reply for reply in replies if reply.get("replies")), replies[0])
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    return min(ranked, key=lambda reply: int(reply["rank"])) if ranked else None
