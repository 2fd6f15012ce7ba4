"""The judge's model: behind an OpenAI-compatible URL, or local."""

import json
from collections.abc import Sequence

from mixtune.compare.judge.pairwise import Ask
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate.answers import generate
from mixtune.http_post import Reply, read_authorization, send_json
from mixtune.inference import loading
from mixtune.inference.endpoint_engine import ask_each
from mixtune.inference.loading import ModelSource
from mixtune.inference.prompts import render_question

MAX_TOKENS = 64
"""Tokens of a verdict at most."""
TRIES = 4
THREADS = 8


def ask_url(url: str, model: str, key_path: str) -> Ask:
    """Return a judge behind a base URL such as `https://judge.example/v1`, with the key in a file, if one is named.

    Raises:
        ConfigError: No http or https URL, or no such file.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"judge: {url!r} is no http:// or https:// URL")
    headers = read_authorization(key_path, "judge")
    options = {"model": model, "temperature": 0, "seed": 0, "max_tokens": MAX_TOKENS}

    def ask_one(prompt: str) -> str:
        content = {**options, "messages": [{"role": "user", "content": prompt}]}
        endpoint = f"{url.rstrip('/')}/chat/completions"
        return _read_text(send_json(endpoint, content, headers, tries=TRIES, timeout_seconds=60), url)

    return lambda prompts: ask_each(ask_one, prompts, THREADS, "judge: prompts answered")


def ask_local(model: str, chat_template_uri: str = "") -> Ask:
    """Return a judge on this machine: a folder, an `s3://` prefix, or `org/name@revision`, with a chat template."""
    source = ModelSource(base_model=model, chat_template_uri=chat_template_uri)
    fetched = loading.fetch(source)
    engine, tokenizer = loading.load_engine(source, fetched), loading.load_tokenizer(source, fetched)

    def ask(prompts: Sequence[str]) -> list[str]:
        texts = [render_question(tokenizer, prompt) for prompt in prompts]
        return [answer["response"] for answer in generate(engine, tokenizer, texts, MAX_TOKENS)]

    return ask


def _read_text(reply: Reply, url: str) -> str:
    """Return the text of a reply; empty where it has none, so that it counts as missing.

    Raises:
        ModelError: The judge refuses, or does not answer. The key is never in the message.
    """
    if not reply.status:
        raise ModelError(f"judge at {url}: no answer after {TRIES} tries ({reply.problem})")
    if not reply.is_ok:
        raise ModelError(f"judge at {url}: HTTP {reply.status}; check URL, model and key")
    try:
        return str(json.loads(reply.body)["choices"][0]["message"]["content"] or "")
    except ValueError as error:
        raise ModelError(f"judge at {url}: its answer is not JSON ({error}); check the URL") from error
    except (KeyError, IndexError, TypeError):
        return ""
