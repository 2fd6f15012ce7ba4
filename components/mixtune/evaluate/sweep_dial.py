"""The dial, swept: a tuned model at several strengths between its base and itself, each evaluated as it was."""

import gc
from collections.abc import Sequence
from dataclasses import replace

from mixtune import models, storage
from mixtune.artifacts.samples import Dial, DialPoint
from mixtune.artifacts.typed_json import write_artifact
from mixtune.evaluate.run import Inputs, Outputs, run
from mixtune.interpolation import check_strengths
from mixtune.settings.inference import EvaluateSettings


def sweep(
    settings: EvaluateSettings, inputs: Inputs, strengths: Sequence[float], dial_path: str, data_uri: str
) -> None:
    """Evaluate a tuned model at every strength and write where the samples are.

    A strength that cannot be evaluated is noted with its reason: the model itself was evaluated already, and counts.

    Args:
        settings: As for `evaluate`.
        inputs: Of the model as it was trained; of the `failed: ...` of a training nothing is evaluated.
        strengths: Each above 0 and below 1.
        dial_path: Where the manifest goes.
        data_uri: Folder of the samples.

    Raises:
        ConfigError: A strength out of range.
    """
    chosen = check_strengths(list(strengths))
    if inputs.model_uri.startswith(f"{models.FAILED}: "):
        chosen = []
    points = []
    for strength in chosen:
        print(f"dial at {strength:g}:", flush=True)
        folder = storage.join(data_uri, f"{strength:g}")
        path = storage.join(folder, "samples")
        outputs = Outputs(
            samples_path=path,
            data_uri=storage.data_uri(path, "samples"),
            html_path=storage.join(folder, "report"),
            markdown_path=storage.join(folder, "summary"),
        )
        try:
            run(settings, replace(inputs, strength=strength), outputs)
        except Exception as error:  # whatever it is, it may not cost the point that is evaluated already
            print(f"warning: not evaluated at {strength:g}: {error}", flush=True)
            points.append(DialPoint(strength=strength, reason=f"{type(error).__name__}: {error}"))
        else:
            points.append(DialPoint(strength=strength, samples=path))
        gc.collect()  # one model's memory is the next one's
    write_artifact(dial_path, Dial(points=tuple(points), data_uri=data_uri))
