"""What preflight says of a base model from its configuration and its tokenizer alone, without its weights or torch."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.model import Architecture, BaseModel, tried_with
from mixtune.chat.template_files import read_templates
from mixtune.interpolation import find_type
from mixtune.preflight.findings import Findings
from mixtune.preflight.run_settings import RunSettings, valid

LAYOUTS = {
    "packed": "records are packed",
    "rows": "packed records would see one another, so each is a row of its own, padded to the longest",
    "single": "packed records would see one another, so each is a forward pass of its own, which is slower",
}
"""By layout: what it means for a run."""
MASKED = {
    "sdpa": "which is slower than over packed records alone",
    "eager": "which is slow and holds every weight of it in memory: short records, or an image with flash-attn",
}
"""By attention that is not told where records begin: what it means on a GPU."""


def check_architecture(run: RunSettings) -> Findings:
    """Check that the base model's architecture trains, and say how records are packed and what an adapter reaches."""
    model = BaseModel.read(models.fetch_model(run.base_model, weights=False))
    row, kind, same = model.architecture, model.model_type, f"transformers {tried_with()}"
    if row is None and _installed_version() in ("", tried_with()):
        yield "fail", f"{kind}: {same} has no model of this type that writes text; {_same_by_another_name(model)}"
    elif row is None or not row.is_tried:
        yield "warn", f"{kind} was not tried with {same}; the validation run shows whether it trains"
    elif reason := row.refused or row.partly.get(run.method, ""):
        yield "fail", f"{kind} does not train: {reason}; take a model of a type that docs/models.md lists"
    else:
        yield "pass", "; ".join(_texts(run, model, row))
    stored = f"weights are stored as {model.quantized}"
    if model.quantized in models.WIDENED:
        yield "pass", f"{stored}, and trained in bfloat16; whole and merged models are saved so"
    elif model.quantized:
        way = f"take the same model in bfloat16, or as {' or '.join(models.WIDENED)}"
        yield "fail", f"{stored}, in which nothing is trained; {way}"


def _same_by_another_name(model: BaseModel) -> str:
    """Return the way out of an unknown type: many are another type's code, which `architectures` names."""
    if kind := find_type(model.class_name):
        return f"its class {model.class_name} is that of {kind}: set model_type to it in the config.json of a copy"
    return "docs/models.md lists those it has"


def check_weights(folder: Path) -> Findings:
    """Check that a folder's weights are there, whole and readable, by their headers."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    weight_map = storage.read_json(str(index)).get("weight_map") if index.is_file() else {}
    if not isinstance(weight_map, dict):
        which = "which says what file a weight is in; fetch it again"
        yield "fail", f"{folder.name}: {index.name} has no weight_map, {which}"
        return
    listed = {str(name) for name in weight_map.values()}
    files = sorted(listed | {path.name for path in folder.glob("*.safetensors")})
    if not files:
        yield "fail", f"{folder.name}: no safetensors weights in it; convert the model, pickles are not loaded"
    for name in files:
        try:
            with safe_open(str(folder / name), framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            yield "fail", f"{folder.name}: {name} cannot be read ({error}); fetch it again"


def check_lengths(run: RunSettings) -> Findings:
    """Check that the longest record fits into the model's positions."""
    model = BaseModel.read(models.fetch_model(run.base_model, weights=False))
    longest, row, mix = model.max_length, model.architecture, valid(run.mix)
    yield "pass", f"takes {longest or 'an unknown number of'} tokens"
    if not longest or not mix or mix.tokens.max_length <= longest:
        return
    beyond = f"max_length {mix.tokens.max_length} is more than the {longest} tokens that the model takes"
    if row and row.positions:
        yield "fail", f"{beyond}, by a learned vector for each position; set max_length in mix_options to {longest}"
    else:
        yield "warn", f"{beyond}; it has not learned what lies beyond: mix_options.max_length={longest}"


def check_embedding(run: RunSettings) -> Findings:
    """Check that every token of the tokenizer has a row of the embedding."""
    model = BaseModel.read(models.fetch_model(run.base_model, weights=False))
    beyond = model.tokens_beyond_embedding()
    if not beyond:
        yield "pass", f"every token has one of the {model.vocab_size:,} rows"
        return
    templates = "".join(read_templates(model.folder).values())
    written = [token for token in beyond if token in templates]
    token = written[0] if written else max(beyond, key=lambda text: beyond[text])
    text = (
        f"{len(beyond)} of the tokenizer's tokens have no row of the embedding's {model.vocab_size:,}, such as "
        f"{token!r} with id {beyond[token]}"
    )
    if written:
        way = "enlarge the embedding (resize_token_embeddings) and save the model, or take the tokens out"
        yield "fail", f"{text}, which the chat template writes; {way}"
    else:
        yield "warn", f"{text}; a record that holds one is refused"


def _texts(run: RunSettings, model: BaseModel, row: Architecture) -> list[str]:
    settings = valid(run.training)
    on_gpu = bool(run.gpus_per_node and row.gpu_layout)
    texts = [f"{model.model_type}: {LAYOUTS[row.gpu_layout if on_gpu else row.layout]}"]
    if on_gpu and row.gpu_attention in MASKED:
        texts.append(f"attention is {row.gpu_attention}, with a mask, {MASKED[row.gpu_attention]}")
    if settings and settings.method == "lora" and settings.lora_options.target_modules == "all-linear":
        reached, frozen = ([kind for kind, share in row.reach.items() if bool(share) == side] for side in (True, False))
        texts.append(f"an adapter works on {', '.join(reached)}, not on {', '.join(frozen) or 'nothing'}")
    if model.is_composite:
        texts.append("text alone is tuned; other towers stay as they are, and are saved with it")
    return texts


def _installed_version() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""
