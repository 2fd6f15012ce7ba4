"""Models with the comparison that proves them, as a registry is asked to take them."""

from pathlib import Path

from mixtune import storage
from mixtune.artifacts.comparison import TrainedMix
from mixtune.artifacts.samples import Identity
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.artifacts.typed_json import write_artifact
from mixtune.registry.registration import Registration

from ..comparisons import make_axis, make_comparison, make_mix

POOL = PoolReceipt(
    name="customer", planned_share=0.75, share_of_records=0.75, share_of_loss_tokens=0.6, unique_records=5, epochs=1.0
)


def make_request(folder: Path, verdict: str, mix: TrainedMix | None = None, *, force: bool = False) -> Registration:
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    model = storage.fingerprint(str(folder / "adapter"))
    digest = storage.split_fingerprint(model)[1]
    identity = Identity(model=digest, model_kind="adapter", customer="c1", tokenizer="t1")
    comparison = make_comparison(
        verdict,
        make_axis("customer", "pass", 0.5),
        make_axis("mmlu", verdict, 0.5),
        identity={"base": Identity(), "candidate": identity},
        mix=mix or make_mix(75, digest="s1", receipt=MixReceipt(num_tokens=1234, pools=(POOL,))),
    )
    write_artifact(str(folder / "comparison"), comparison)
    return Registration(
        comparison_path=str(folder / "comparison"),
        model_uri=model,
        base_model=str(folder / "base"),
        name="desk",
        force=force,
    )
