"""Who judges: a model behind an OpenAI-compatible URL, or a local one."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mixtune.compare.judge.pairwise import Ask
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate.answers import generate
from mixtune.inference import loading
from mixtune.inference.loading import ModelSource
from mixtune.inference.prompts import render_question

MAX_TOKENS = 64
"""Tokens of a verdict at most."""
TIMEOUT_SECONDS = 60
TRIES = 4
THREADS = 8
REPORT_SECONDS = 10.0
RETRIED = (408, 409, 429, 500, 502, 503, 504)
"""HTTP statuses after which it is worth asking again."""


def ask_url(url: str, model: str, key_path: str) -> Ask:
    """A judge behind a URL.

    Args:
        url: Base URL, such as `https://judge.example/v1`.
        model: The model's name there.
        key_path: File with the key, as a mounted secret has it; empty: no key.

    Raises:
        ConfigError: No http or https URL, or no such file.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"judge: {url!r} is no http:// or https:// URL")
    if key_path and not Path(key_path).is_file():
        raise ConfigError(f"judge: no key at {key_path}; mount the secret there, or leave key_path empty")
    headers = {"Content-Type": "application/json"}
    if key_path:
        headers["Authorization"] = f"Bearer {Path(key_path).read_text().strip()}"

    def ask_one(prompt: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "seed": 0}
        data = json.dumps({**body, "max_tokens": MAX_TOKENS}).encode()
        request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", data, headers)
        return _said(_send(request, url))

    def ask(prompts: Sequence[str]) -> list[str]:
        said: list[str] = []
        told = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            for text in pool.map(ask_one, prompts):
                said.append(text)
                if time.perf_counter() - told > REPORT_SECONDS:
                    told = time.perf_counter()
                    print(f"judge: {len(said)} of {len(prompts)} prompts answered", flush=True)
        return said

    return ask


def ask_local(model: str, dtype: str = "auto") -> Ask:
    """A judge on this machine: a folder, an `s3://` prefix, or `org/name@revision`, with a chat template."""
    source = ModelSource(base_model=model, dtype=dtype)
    fetched = loading.fetch(source)
    engine, tokenizer = loading.load_engine(source, fetched), loading.load_tokenizer(fetched)

    def ask(prompts: Sequence[str]) -> list[str]:
        texts = [render_question(tokenizer, prompt) for prompt in prompts]
        return [answer["response"] for answer in generate(engine, tokenizer, texts, MAX_TOKENS)]

    return ask


def _send(request: urllib.request.Request, url: str) -> Any:
    """The reply's JSON, after some tries.

    Raises:
        ModelError: The judge refuses, or does not answer. The key is never in the message.
    """
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            if last or error.code not in RETRIED:
                raise ModelError(f"judge at {url}: HTTP {error.code}; check URL, model and key") from error
        except (OSError, ValueError) as error:
            if last:
                raise ModelError(f"judge at {url}: no answer after {TRIES} tries ({error})") from error
        time.sleep(0.5 * 2**attempt)
    raise AssertionError("not reached")


def _said(reply: Any) -> str:
    """The text of a reply; empty where it has none, so that it counts as missing."""
    try:
        return str(reply["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        return ""
