"""The dial, swept: a tuned model at several strengths between its base and itself, each evaluated as it was."""

import gc
from dataclasses import replace
from typing import Any

from mixtune import models, storage
from mixtune.evaluate.run import EvaluationInputs, EvaluationOutputs, run_evaluation
from mixtune.interpolation import check_strengths


def sweep(inputs: EvaluationInputs, strengths: list[Any], dial_uri: str, dial_path: str) -> None:
    """Evaluate a tuned model at every strength and write where the samples are.

    A strength that cannot be evaluated is told with its reason: the model itself was evaluated already, and counts.

    Args:
        inputs: Of the model as it was trained; the `failed: ...` of a training leaves nothing to turn.
        strengths: Each above 0 and below 1.
        dial_uri: URI of the artifact; samples go beside it.
        dial_path: Its manifest: `strength` and `samples`, or `reason`, of each.

    Raises:
        ConfigError: A strength out of range.
    """
    storage.use(inputs.storage)
    chosen = check_strengths(strengths)
    if inputs.model_uri.startswith(f"{models.FAILED}: "):
        chosen = []
    folder = storage.data_uri(dial_uri, "dial")
    turned = []
    for strength in chosen:
        print(f"dial at {strength:g}:", flush=True)
        places = storage.join(folder, f"{strength:g}")
        samples = storage.join(places, "samples")
        outputs = EvaluationOutputs(
            samples_uri=samples,
            samples_path=samples,
            report_path=storage.join(places, "report"),
            summary_path=storage.join(places, "summary"),
        )
        try:
            run_evaluation(replace(inputs, strength=strength), outputs)
        except Exception as error:  # whatever it is, it may not cost the point that is evaluated already
            print(f"warning: not evaluated at {strength:g}: {error}", flush=True)
            turned.append({"strength": strength, "reason": f"{type(error).__name__}: {error}"})
        else:
            turned.append({"strength": strength, "samples": samples})
        gc.collect()  # one model's memory is the next one's
    storage.write_manifest(dial_path, {"kind": "dial", "turned": turned}, folder, [])
