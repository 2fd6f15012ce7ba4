"""What follows on a pass, as a pipeline of one's own: register the model, and write the objects that serve it.

    python examples/release.py          writes release.yaml beside it
    mixtune run examples/release.yaml comparison_uri=... model_uri=... base_model=... model_name=desk

Both steps read the comparison themselves, and refuse a model whose verdict is not `pass` or whose files changed since.
In a pipeline that compares itself, take `compare`'s output in place of the importer.
"""

from pathlib import Path

from kfp import compiler, dsl

from mixtune.registry.component import register
from mixtune.serve.component import serve


@dsl.pipeline(name="release", description="Register a model that passed, and write the objects that serve it.")
def release(
    comparison_uri: str,
    model_uri: str,
    base_model: str,
    model_name: str,
    registry: dict = {},
    serve_options: dict = {},
    tracking: dict = {},
) -> str:
    """Register a model that passed, then write its Kubernetes objects.

    Args:
        comparison_uri: The comparison of `compare`, or the report of `choose_mix` or `choose_rung`.
        model_uri: The compared model, with its digest: `model_uri` in the run's `report.json`.
        base_model: What it was tuned from.
        model_name: In the registry, and as requests name it.
        registry: `kind`, `url`, `token_file`, `owner`; empty: MLflow's.
        serve_options: `form`, `namespace`, `base_uri`, `tuned_uri`, ...
        tracking: MLflow: `uri`, `experiment`.

    Returns:
        The endpoint's address, once the objects are applied.
    """
    comparison = dsl.importer(artifact_uri=comparison_uri, artifact_class=dsl.Artifact, reimport=True)
    registered = register(
        comparison=comparison.output,
        model_uri=model_uri,
        base_model=base_model,
        model_name=model_name,
        registry=registry,
        tracking=tracking,
    ).set_caching_options(False)
    served = serve(
        comparison=comparison.output,
        model_uri=model_uri,
        base_model=base_model,
        model_name=model_name,
        options=serve_options,
    ).set_caching_options(False)
    return served.after(registered).outputs["Output"]


if __name__ == "__main__":
    compiler.Compiler().compile(release, str(Path(__file__).with_suffix(".yaml")))
