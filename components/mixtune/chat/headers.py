"""What a prompt writes before an answer, found where a conversation shows it otherwise than the prompt does."""

import re
from itertools import takewhile

from mixtune.chat.thinking import ending_empty_thought, last_closing, leading_closing

_SHORTEST = 3
"""Characters of a header's end that tell it."""


def answer_behind(prompted: str, shown: str, control: re.Pattern[str]) -> str | None:
    """Return the answer in what is shown behind a message; None where it cannot be told.

    `prompted` is what a prompt writes behind that message (the answer's header, an empty thought, a cue before it),
    `shown` what a conversation with the answer writes there. `control` finds the template's control tokens.
    """
    header = prompted.removesuffix(ending_empty_thought(prompted))
    header = header.removesuffix(last_closing(header))
    tokens = [match.start() for match in control.finditer(header)]
    header = header if shown.startswith(header) or not tokens else header[tokens[-1] :]
    _, is_shown, answer = shown.partition(header) if header else ("", "", "")
    if header != prompted:
        answer = answer.removeprefix(leading_closing(answer))
    if not is_shown and header.strip():  # it may end in other white space, or have a cue before it
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(shown, header, strict=False)))
        endings = (header[place:].rstrip() for place in range(common, len(header)))
        is_end = (text for text in endings if len(text) >= _SHORTEST and shown.startswith(text, common))
        _, is_shown, answer = shown.partition(next(is_end, header.rstrip()))
        answer = answer.lstrip()
    return answer if is_shown else None
