"""A message about a run to a webhook: https only, its URL from a file, nothing personal in it.

The URL is a secret: whoever has it can post. So it is never a parameter, an environment variable or a word in a log;
it is a file of a mounted secret, and only its host is ever named.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib import error, request
from urllib.parse import urlsplit

from mixtune.errors import ConfigError

DEFAULT_FILE = "/etc/mixtune/webhook/url"
TRIES = 3
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 20


def webhook_url() -> str:
    """The URL in the file that `MIXTUNE_WEBHOOK_FILE` names, else in the mounted secret's; empty: there is none.

    Raises:
        ConfigError: It is no https address.
    """
    file = Path(os.environ.get("MIXTUNE_WEBHOOK_FILE") or DEFAULT_FILE)
    if not file.is_file():
        return ""
    url = file.read_text().strip()
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(f"{file}: a webhook's URL begins with https://; this one does not")
    return url


def send(message: Mapping[str, Any]) -> str:
    """Post a message as JSON, three times at most; what came of it, in words that may be printed."""
    try:
        url = webhook_url()
    except ConfigError as wrong:
        return f"warning: nobody was told: {wrong}"
    if not url:
        return "webhook: none"
    body, host = json.dumps(message).encode(), urlsplit(url).hostname
    post = request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    said = ""
    for number in range(TRIES):
        time.sleep(number * PAUSE_SECONDS)
        try:
            with request.build_opener(_Stay).open(post, timeout=TIMEOUT_SECONDS) as answer:
                return f"webhook: {host} was told ({answer.status})"
        except error.HTTPError as refused:
            said = f"it answered {refused.code}"
            if refused.code < 500:
                break
        except OSError as failed:
            said = f"it does not answer ({type(failed).__name__})"
    return f"warning: webhook {host} was not told: {said}; the run is not affected"


class _Stay(request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the message was meant for that address."""

    def redirect_request(self, *_: Any) -> None:
        """Never."""
