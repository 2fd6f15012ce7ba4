"""Requests with JSON, tried again where that may help; redirects are not followed, since a key may be in them."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib import error, request

from mixtune.errors import ConfigError

FIRST_PAUSE_SECONDS = 0.5
"""Between two tries; twice as long each time."""
RETRIED = (408, 409, 429)
"""HTTP statuses below 500 after which it is worth asking again; all from 500 are."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The last answer to a request."""

    status: int
    """HTTP status; 0: there was no answer."""
    body: bytes = b""
    """Empty unless the status is below 300."""
    refusal: bytes = b""
    """What the answer says where the status is not; it may repeat what was sent."""
    problem: str = ""
    """Why there was no answer."""

    @property
    def is_ok(self) -> bool:
        """Whether the request was taken."""
        return 200 <= self.status < 300


def send_json(
    url: str,
    content: object,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    tries: int,
    timeout_seconds: float,
) -> Reply:
    """Send a JSON value, None: nothing; return the first answer that trying again would not change, else the last."""
    data = None if content is None else json.dumps(content).encode()
    kind = {"Content-Type": "application/json"} if data is not None else {}
    message = request.Request(url, data, {**kind, **(headers or {})}, method=method)
    for attempt in range(tries):
        time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) if attempt else 0)
        reply = _send(message, timeout_seconds)
        if 0 < reply.status < 500 and reply.status not in RETRIED:
            break
    return reply


def _send(message: request.Request, timeout_seconds: float) -> Reply:
    try:
        with request.build_opener(_NoRedirect).open(message, timeout=timeout_seconds) as answer:
            return Reply(status=answer.status, body=answer.read())
    except error.HTTPError as refusal:
        return Reply(status=refusal.code, refusal=_read_quietly(refusal))
    except (OSError, HTTPException) as failure:
        return Reply(status=0, problem=f"{type(failure).__name__}: {failure}")


def _read_quietly(refusal: error.HTTPError) -> bytes:
    try:
        return refusal.read()
    except (OSError, HTTPException):
        return b""


def read_authorization(key_path: str, owner: str) -> dict[str, str]:
    """Return the header with the key in a file; none where no file is named.

    Raises:
        ConfigError: The file cannot be read; the message begins with whose key it is.
    """
    if not key_path:
        return {}
    try:
        key = Path(key_path).read_text(encoding="ascii").strip()
    except OSError as failure:
        reason = failure.strerror
        raise ConfigError(f"{owner}: no key at {key_path} ({reason}); mount the secret there") from failure
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable():
        raise ConfigError(f"{owner}: {key_path} holds no key: one line of ASCII is needed; mount the secret there")
    return {"Authorization": f"Bearer {key}"}


class _NoRedirect(request.HTTPRedirectHandler):
    """Leaves a redirect as the answer."""

    def redirect_request(self, *_: object) -> None:
        """Never follow."""
