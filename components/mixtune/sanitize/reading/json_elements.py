"""The elements of a JSON array or object as texts, piece by piece: one that is broken costs none of the others."""

import re
from collections.abc import Iterator
from typing import IO

from mixtune.errors import DataError

BLOCK_BYTES = 2**20
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)


def split_elements(stream: IO[bytes], max_bytes: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the outer bracket of a JSON text, from its begin, and the texts of its elements, of `max_bytes` at most.

    Raises:
        DataError: The text is no array or object, ends early, goes on after its end, or an element is too long.
    """
    head = b""
    while not head and (block := stream.read(BLOCK_BYTES)):
        head = block.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] not in (b"[", b"{"):
        raise DataError("neither a JSON array nor an object begins it (a comment? JSON has none)")
    return head[:1], _split(head, stream, max_bytes)


def _split(head: bytes, stream: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    closing, buffer = b"]}"[head[:1] == b"{" :][:1], head[1:]
    start, at, depth, number = 0, 0, 1, 0
    while True:
        for match in _TOKEN.finditer(buffer, at):
            if match[0] == b'"':  # a string that goes on in the next block
                break
            at = match.end()
            depth += (match[0] in b"[{") - (match[0] in b"]}")
            if depth == 0 or (depth == 1 and match[0] == b","):
                text = buffer[start : match.start()]
                start, number = at, number + 1
                if depth or text.strip() or number > 1:
                    yield text
                if depth == 0:
                    if match[0] != closing:
                        raise DataError(
                            f"not whole JSON: what opens with {head[:1].decode()} closes with {match[0].decode()}"
                        )
                    _check_end(buffer[at:], stream)
                    return
        if len(buffer) - start > max_bytes:
            raise DataError(f"element {number + 1} is longer than {max_bytes} bytes")
        if not (block := stream.read(BLOCK_BYTES)):
            raise DataError("not whole JSON: it ends early")
        buffer, start, at = buffer[start:] + block, 0, at - start


def _check_end(rest: bytes, stream: IO[bytes]) -> None:
    while rest:
        if not rest.isspace():
            raise DataError(
                "text after the end of its JSON; a file with one object a line is named .jsonl; of objects one behind "
                "the other, `jq -c . OLD > NEW.jsonl` makes such a file"
            )
        rest = stream.read(BLOCK_BYTES)
