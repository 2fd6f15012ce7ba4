"""A candidate that passed, in MLflow's model registry, with a card that says what it is and what was proved."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.artifacts.provenance import Terms
from mixtune.errors import ConfigError, DataError
from mixtune.report import pages
from mixtune.results import PASS
from mixtune.settings.from_dict import from_dict
from mixtune.tracking import Tracking, commit_hash

_LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)
"""The licence in the front matter of a model's README, as model hubs write it."""
_LOADED_FIRST = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
{imports}
model = AutoModelForCausalLM.from_pretrained("{base}")
{adapt}tokenizer = AutoTokenizer.from_pretrained("{base}")
```

```
{serve}
```"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is to be registered."""

    comparison_path: str
    """The JSON of `compare`."""
    model_uri: str
    """The compared model, with its digest."""
    base_model: str
    name: str
    """Of the registered model."""
    licence: str = ""
    """Of the base model; empty: as its files say."""
    force: bool = False
    """Register it although it did not pass; the card and the version's tags say so."""


def register_model(candidate: Candidate, card_path: str, options: dict[str, Any]) -> str:
    """Write the model's card and make a version of it in the registry; the same model keeps its version.

    Args:
        candidate: What is to be registered.
        card_path: Where the card goes.
        options: The `tracking` parameter.

    Returns:
        The version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, or there is no tracking URI.
        DataError: The comparison is of another model.
    """
    comparison = storage.read_json(candidate.comparison_path)
    digest = storage.split_fingerprint(candidate.model_uri)[1]
    compared = comparison["identity"]["candidate"].get("model", "")
    if digest != compared:
        raise DataError(f"{candidate.model_uri}: the comparison is of model {compared}; compare this one first")
    if comparison["verdict"] != PASS and not candidate.force:
        failed = [axis["axis"] for axis in comparison["axes"] if axis["verdict"] != PASS]
        raise ConfigError(
            f"{candidate.name}: the verdict is {comparison['verdict']} ({', '.join(failed)}), only a model that passed "
            "is registered; force=True registers it all the same, and says so"
        )
    tracking = Tracking.from_options(options)
    if not tracking.uri:
        raise ConfigError(f"{candidate.name}: a registry needs MLflow; give tracking uri, or set MLFLOW_TRACKING_URI")
    card = write_card(candidate, comparison)
    pages.write_text(card_path, card)
    return _version(candidate, digest, comparison, card, tracking.uri)


def write_card(candidate: Candidate, comparison: dict[str, Any]) -> str:
    """The model card, as Markdown."""
    base = storage.split_fingerprint(candidate.base_model)[0]
    verdict = f"**{comparison['verdict']}**" + (", registered by force" if comparison["verdict"] != PASS else "")
    header = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "verdict"]
    proof = pages.markdown_table(header, [_axis_row(axis) for axis in comparison["axes"]])
    identity = comparison["identity"]["candidate"]
    versions = [[name, str(identity[name])] for name in ("customer", "general", "tokenizer") if name in identity]
    versions += [["shards", comparison["mix"].get("digest", "none")], ["code", commit_hash()]]
    return (
        f"# {candidate.name}\n\n"
        f"Tuned from `{base}` (licence: {candidate.licence or _licence(candidate.base_model)}). Verdict: {verdict}.\n\n"
        f"## What was kept and gained\n\n{proof}\n\n## The mix\n\n{_mix(comparison['mix'])}\n\n"
        f"## Versions\n\n{pages.markdown_table(['what', 'digest'], versions)}\n\n"
        f"## Load it\n\n{_loading(candidate, base, identity['model_kind'])}\n"
    )


def _axis_row(axis: dict[str, Any]) -> list[str]:
    allowed = f"{axis['limit']:g}" if axis["limit"] is not None else ""
    shown = [f"{axis[key]:.4f}" for key in ("base", "candidate")]
    bounds = f"{axis['lower']:+.4f} to {axis['upper']:+.4f}"
    return [axis["axis"], *shown, f"{axis['difference']:+.4f}", bounds, allowed, axis["verdict"]]


def _mix(mix: dict[str, Any]) -> str:
    if "receipt" not in mix:
        return "Not known: it was trained elsewhere."
    receipt = mix["receipt"]
    rows = [
        [
            pool["name"],
            f"{pool['planned_share']:.2%}",
            f"{pool['share_of_records']:.2%}",
            f"{pool['share_of_loss_tokens']:.2%}",
            f"{pool['unique_records']:,}",
            f"{pool['epochs']:.2f}",
        ]
        for pool in receipt["pools"]
    ]
    header = ["pool", "planned", "of records", "of loss tokens", "records", "epochs"]
    said = f"{receipt['num_steps']} steps of {receipt['global_batch_size']} records, {receipt['num_tokens']:,} tokens."
    return f"{said}\n\n{pages.markdown_table(header, rows)}" + _terms(mix)


def _terms(mix: dict[str, Any]) -> str:
    """Where the general pools come from and on what terms; a pool that nobody imported has none on record."""
    header = ("licence", "licence_url", "source", "revision", "attribution")
    rows = []
    for pool in mix["receipt"]["pools"][1:]:
        provenance = mix.get("provenance", {}).get(pool["name"], {"licence": "not recorded"})
        terms = from_dict(Terms, provenance, pool["name"])
        rows.append([pool["name"], *(getattr(terms, key) for key in header)])
    titles = ["pool", *(key.replace("_", " ") for key in header)]
    return f"\n\n## Licences of the general pools\n\n{pages.markdown_table(titles, rows)}" if rows else ""


def _loading(candidate: Candidate, base: str, kind: str) -> str:
    """How to load it in transformers and vLLM."""
    model = storage.split_fingerprint(candidate.model_uri)[0]
    if kind != "adapter":
        return _LOADED_FIRST.format(base=model, imports="", adapt="", serve=f"vllm serve {model}")
    return _LOADED_FIRST.format(
        base=base,
        imports="from peft import PeftModel\n",
        adapt=f'model = PeftModel.from_pretrained(model, "{model}")\n',
        serve=f"vllm serve {base} --enable-lora --lora-modules {candidate.name}={model}",
    )


def _licence(base_model: str) -> str:
    """What the base model's files say of its licence."""
    folder = models.fetch_model(base_model, weights=False)
    config = storage.read_json(str(folder / "config.json"))
    readme = folder / "README.md"
    found = _LICENCE.search(readme.read_text(errors="replace")) if readme.is_file() else None
    files = sorted(path.name for path in Path(folder).glob("LICENSE*"))
    return str(config.get("license") or (found[1] if found else "") or ", ".join(files) or "not stated in its files")


def _version(candidate: Candidate, digest: str, comparison: dict[str, Any], card: str, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        client.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{candidate.name}'")
    for version in known:
        if version.tags.get("model_digest") == digest:
            return str(version.version)
    tags = {
        "model_digest": digest,
        "verdict": comparison["verdict"],
        "forced": str(comparison["verdict"] != PASS).lower(),
        "mix_ratio": str(comparison["mix"].get("mix_ratio", "unknown")),
        "base_model": candidate.base_model,
    }
    source = storage.split_fingerprint(candidate.model_uri)[0]
    made = client.create_model_version(candidate.name, source, tags=tags, description=card)
    print(f"register: {candidate.name} version {made.version}, {comparison['verdict']}", flush=True)
    return str(made.version)
