"""A candidate that passed, in MLflow's model registry, with a card that says what it is and what was proved."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.artifacts.comparison import PASS, AxisVerdict, Comparison, TrainedMix
from mixtune.artifacts.provenance import Terms
from mixtune.artifacts.typed_json import read_artifact
from mixtune.errors import ConfigError, DataError
from mixtune.report import pages
from mixtune.tracking import Tracking, commit_hash

_LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)
"""The licence in the front matter of a model's README, as model hubs write it."""
_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
{imports}
model = AutoModelForCausalLM.from_pretrained("{base}")
{adapt}tokenizer = AutoTokenizer.from_pretrained("{base}")
```

```
{serve}
```"""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A request to register a model."""

    comparison_path: str
    model_uri: str
    """The compared model, with its digest."""
    base_model: str
    name: str
    """Of the registered model."""
    licence: str = ""
    """Of the base model; empty: as its files say."""
    force: bool = False
    """Register it although it did not pass; the card and the version's tags say so."""


def register_model(request: Registration, card_path: str, options: dict[str, Any]) -> str:
    """Write the model's card and make a version of it in the registry; the same model keeps its version.

    Args:
        request: What is to be registered.
        card_path: Where the card goes.
        options: The `tracking` parameter.

    Returns:
        The version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, or there is no tracking URI.
        DataError: The comparison is of another model.
    """
    comparison = read_artifact(Comparison, request.comparison_path)
    digest = storage.split_fingerprint(request.model_uri)[1]
    compared = comparison.identity["candidate"].model
    if digest != compared:
        raise DataError(f"{request.model_uri}: the comparison is of model {compared}; compare this one first")
    if comparison.verdict != PASS and not request.force:
        failed = [axis.axis for axis in comparison.axes if axis.verdict != PASS]
        raise ConfigError(
            f"{request.name}: the verdict is {comparison.verdict} ({', '.join(failed)}), only a model that passed "
            "is registered; force=True registers it all the same, and says so"
        )
    tracking = Tracking.from_options(options)
    if not tracking.uri:
        raise ConfigError(f"{request.name}: a registry needs MLflow; give tracking uri, or set MLFLOW_TRACKING_URI")
    card = write_card(request, comparison)
    pages.write_text(card_path, card)
    return _find_or_create_version(request, digest, comparison, card, tracking.uri)


def write_card(request: Registration, comparison: Comparison) -> str:
    """Return the model card, as Markdown."""
    base = storage.split_fingerprint(request.base_model)[0]
    verdict = f"**{comparison.verdict}**" + (", registered by force" if comparison.verdict != PASS else "")
    header = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "verdict"]
    proof = pages.markdown_table(header, [_axis_row(axis) for axis in comparison.axes])
    identity = comparison.identity["candidate"]
    versions = [["customer", identity.customer], ["general", identity.general], ["tokenizer", identity.tokenizer]]
    versions += [["shards", comparison.mix.digest if comparison.mix else "none"], ["code", commit_hash()]]
    licence = request.licence or _find_licence(request.base_model)
    return (
        f"# {request.name}\n\n"
        f"Tuned from `{base}` (licence: {licence}). Verdict: {verdict}.\n\n"
        f"## What was kept and gained\n\n{proof}\n\n## The mix\n\n{_describe_mix(comparison.mix)}\n\n"
        f"## Versions\n\n{pages.markdown_table(['what', 'digest'], versions)}\n\n"
        f"## Load it\n\n{_explain_loading(request, base, identity.model_kind)}\n"
    )


def _axis_row(axis: AxisVerdict) -> list[str]:
    measure, change = axis.measure, axis.measure.change
    scores = [f"{measure.base:.4f}", f"{measure.candidate:.4f}", f"{change.difference:+.4f}"]
    return [axis.axis, *scores, f"{change.lower:+.4f} to {change.upper:+.4f}", f"{axis.limit:g}", axis.verdict]


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


def _explain_loading(request: Registration, base: str, kind: str) -> str:
    """Return how to load the model in transformers and vLLM."""
    model = storage.split_fingerprint(request.model_uri)[0]
    if kind != "adapter":
        return _USAGE.format(base=model, imports="", adapt="", serve=f"vllm serve {model}")
    return _USAGE.format(
        base=base,
        imports="from peft import PeftModel\n",
        adapt=f'model = PeftModel.from_pretrained(model, "{model}")\n',
        serve=f"vllm serve {base} --enable-lora --lora-modules {request.name}={model}",
    )


def _find_licence(base_model: str) -> str:
    """Return what the base model's files say of its licence."""
    folder = models.fetch_model(base_model, weights=False)
    config = storage.read_json(str(folder / "config.json"))
    readme = folder / "README.md"
    match = _LICENCE.search(readme.read_text(errors="replace")) if readme.is_file() else None
    files = sorted(path.name for path in Path(folder).glob("LICENSE*"))
    return str(config.get("license") or (match[1] if match else "") or ", ".join(files) or "not stated in its files")


def _find_or_create_version(request: Registration, digest: str, comparison: Comparison, card: str, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        client.create_registered_model(request.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{request.name}'"):
        if version.tags.get("model_digest") == digest:
            return str(version.version)
    tags = {
        "model_digest": digest,
        "verdict": comparison.verdict,
        "forced": str(comparison.verdict != PASS).lower(),
        "mix_ratio": str(comparison.mix.mix_ratio if comparison.mix else "unknown"),
        "base_model": request.base_model,
    }
    source = storage.split_fingerprint(request.model_uri)[0]
    created = client.create_model_version(request.name, source, tags=tags, description=card)
    print(f"register: {request.name} version {created.version}, {comparison.verdict}", flush=True)
    return str(created.version)
