"""Comparisons as `compare` writes them, with a few figures of one's own."""

from typing import Any

from mixtune.artifacts.comparison import AxisVerdict, Comparison, Estimate, ItemCounts, Measure, TrainedMix
from mixtune.artifacts.samples import BenchmarkIdentity, Identity
from mixtune.artifacts.shards import MixReceipt


def make_axis(name: str, verdict: str, candidate: float, *, base: float = 0.5, **changes: Any) -> AxisVerdict:
    """An axis whose score went from `base` to `candidate`, with bounds of 0.05 around the change."""
    difference = candidate - base
    change = Estimate(difference=difference, standard_error=0.03, lower=difference - 0.05, upper=difference + 0.05)
    customer = name == "customer"
    return AxisVerdict(
        **{
            "axis": name,
            "form": "classification" if customer else "mmlu",
            "question": "superiority" if customer else "non-inferiority",
            "limit": 0.0 if customer else 0.02,
            "verdict": verdict,
            "advice": "",
            "detectable": 0.07,
            "items": ItemCounts(total=100),
            "measures": (Measure(metric="accuracy", base=base, candidate=candidate, change=change),),
            **changes,
        }
    )


def make_mix(percent: float, **changes: Any) -> TrainedMix:
    return TrainedMix(
        **{
            "digest": "5h4rd5",
            "mix_ratio": percent / 100,
            "seed": 7,
            "num_steps": 40,
            "global_batch_size": 32,
            "receipt": MixReceipt(num_tokens=9000),
            **changes,
        }
    )


def make_comparison(verdict: str, *axes: AxisVerdict, **changes: Any) -> Comparison:
    identity = {
        "base": Identity(
            base_model="b453",
            tokenizer="70k",
            benchmarks={"mmlu": BenchmarkIdentity(form="mmlu", data="m", options={})},
        ),
        "candidate": Identity(model="7un3d", model_kind="adapter"),
    }
    return Comparison(
        **{
            "verdict": verdict,
            "axes": axes,
            "identity": identity,
            "limit": 0,
            "model_uri": "s3://b/kfp/model#7un3d",
            "mix": make_mix(75),
            **changes,
        }
    )
