"""A message about a run to a webhook: https only, its URL from a file, nothing personal in it.

The URL is a secret: whoever has it can post. So it is never a parameter, an environment variable or a word in a log;
it is a file of a mounted secret, and only its host is ever named.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mixtune.errors import ConfigError
from mixtune.http_post import send_json

DEFAULT_FILE = "/etc/mixtune/webhook/url"


def read_webhook_url() -> str:
    """Return the URL in the file that `MIXTUNE_WEBHOOK_FILE` names, else in the mounted secret's; empty: there is none.

    Raises:
        ConfigError: It is no https address, or the file that is named is not there.
    """
    named = os.environ.get("MIXTUNE_WEBHOOK_FILE", "")
    file = Path(named or DEFAULT_FILE)
    if not named and not file.is_file():
        return ""
    try:
        url = file.read_text(encoding="ascii").strip()
        parts = urlsplit(url)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no webhook's URL can be read there ({type(error).__name__})") from error
    if parts.scheme != "https" or not parts.hostname or not url.isprintable() or " " in url:
        raise ConfigError(f"{file}: a webhook's URL is one line that begins with https://; this one is not")
    return url


def send(message: Mapping[str, object]) -> str:
    """Post a message as JSON; return what happened, in words that may be printed."""
    try:
        url = read_webhook_url()
    except ConfigError as error:
        return f"warning: nobody was told: {error}"
    if not url:
        return "webhook: none"
    host, reply = urlsplit(url).hostname, send_json(url, message, tries=3, timeout_seconds=20)
    if reply.is_ok:
        return f"webhook: {host} was told ({reply.status})"
    problem = f"it answered {reply.status}"
    if not reply.status:
        problem = f"it does not answer ({reply.problem.partition(':')[0]})"
    return f"warning: webhook {host} was not told: {problem}; the run is not affected"
