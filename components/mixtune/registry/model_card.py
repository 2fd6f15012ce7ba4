"""The card of a model: what was kept and gained, on which mix, on what terms, and how to load it."""

from dataclasses import dataclass

from mixtune import models, storage
from mixtune.artifacts.comparison import PASS, Comparison, TrainedMix
from mixtune.artifacts.model import find_manifest
from mixtune.artifacts.provenance import Terms
from mixtune.report import pages
from mixtune.report.score_cells import allowed_cell, score_cells
from mixtune.tracking import commit_hash

_USAGE = """```python
from transformers import {auto_class}, AutoTokenizer
{imports}
model = {auto_class}.from_pretrained("{base}")
{adapt}tokenizer = AutoTokenizer.from_pretrained("{base}")
```

```
{serve}
```"""


@dataclass(frozen=True, kw_only=True)
class CardSubject:
    """The model that a card is about."""

    name: str
    model_uri: str
    """With or without its digest."""
    base_model: str
    licence: str
    """Of the base model."""
    is_composite: bool = False
    """Whether the base model has other towers beside the decoder of text, and is loaded whole."""


def write_card(subject: CardSubject, comparison: Comparison) -> str:
    """Return the model card, as Markdown."""
    base = storage.plain_uri(subject.base_model)
    verdict = f"**{comparison.verdict}**" + (", registered by force" if comparison.verdict != PASS else "")
    header = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "verdict"]
    rows = [[axis.title, *score_cells(axis.measure), allowed_cell(axis), axis.verdict] for axis in comparison.axes]
    proof = pages.markdown_table(header, rows)
    identity = comparison.identity["candidate"]
    versions = [["customer", identity.customer], ["general", identity.general], ["tokenizer", identity.tokenizer]]
    versions += [["shards", comparison.mix.digest if comparison.mix else "none"], ["code", commit_hash()]]
    return (
        f"# {subject.name}\n\n"
        f"Tuned from `{base}` (licence: {subject.licence}). Verdict: {verdict}.\n\n"
        f"## What was kept and gained\n\n{proof}\n\n## The mix\n\n{_describe_mix(comparison.mix)}\n\n"
        f"## Versions\n\n{pages.markdown_table(['what', 'digest'], versions)}\n\n"
        f"{_describe_reach(subject.model_uri)}"
        f"## Load it\n\n{_explain_loading(subject, base, identity.model_kind)}\n"
    )


def find_licence(base_model: str) -> str:
    """Return what the base model's files say of its licence."""
    return models.read_licence(models.fetch_model(base_model, weights=False)) or "not stated in its files"


def _describe_mix(mix: TrainedMix | None) -> str:
    if mix is None:
        return "Not known: it was trained elsewhere."
    rows = [
        [
            pool.name,
            f"{pool.planned_share:.2%}",
            f"{pool.share_of_records:.2%}",
            f"{pool.share_of_loss_tokens:.2%}",
            f"{pool.unique_records:,}",
            f"{pool.epochs:.2f}",
        ]
        for pool in mix.receipt.pools
    ]
    header = ["pool", "planned", "of records", "of loss tokens", "records", "epochs"]
    size = f"{mix.num_steps} steps of {mix.global_batch_size} records, {mix.receipt.num_tokens:,} tokens."
    return f"{size}\n\n{pages.markdown_table(header, rows)}" + _describe_licences(mix)


def _describe_licences(mix: TrainedMix) -> str:
    """Return where the general pools come from and on what terms; one that nobody imported has none on record."""
    header = ("licence", "licence_url", "source", "revision", "attribution")
    unrecorded = Terms(licence="not recorded")
    rows = []
    for pool in mix.receipt.pools[1:]:
        terms = mix.terms.get(pool.name, unrecorded)
        rows.append([pool.name, *(getattr(terms, key) for key in header)])
    titles = ["pool", *(key.replace("_", " ") for key in header)]
    return f"\n\n## Licences of the general pools\n\n{pages.markdown_table(titles, rows)}" if rows else ""


def _describe_reach(model_uri: str) -> str:
    """Return which part of the weights was trained; empty where the training left no word of it."""
    manifest = find_manifest(model_uri)
    return f"## What was trained\n\n{manifest.reach.line()}.\n\n" if manifest and manifest.reach else ""


def _explain_loading(subject: CardSubject, base: str, kind: str) -> str:
    """Return how to load the model in transformers and vLLM."""
    model = storage.plain_uri(subject.model_uri)
    auto_class = "AutoModelForMultimodalLM" if subject.is_composite else "AutoModelForCausalLM"
    if kind != "adapter":
        return _USAGE.format(auto_class=auto_class, base=model, imports="", adapt="", serve=f"vllm serve {model}")
    return _USAGE.format(
        auto_class=auto_class,
        base=base,
        imports="from peft import PeftModel\n",
        adapt=f'model = PeftModel.from_pretrained(model, "{model}")\n',
        serve=f"vllm serve {base} --enable-lora --lora-modules {subject.name}={model}",
    )
