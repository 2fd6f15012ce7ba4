"""The KFP component that makes a model ready to be served: `serve`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def serve(
    comparison: Input[Artifact],
    model_uri: str,
    base_model: str,
    model_name: str,
    objects: Output[Artifact],
    endpoint: Output[Artifact],
    summary: Output[Markdown],
    force: bool = False,
    options: dict = {},
    storage: dict = {},
) -> str:
    """Write the Kubernetes objects that serve a model that passed, by KServe or by vLLM alone; nothing is applied.

    GPUs, memory and disk follow from the model's shape. The pods are not root, write to volumes alone, and have no
    token of Kubernetes.

    Args:
        comparison: The JSON of `compare`, `choose_mix` or `choose_rung`.
        model_uri: The compared model, with its digest, as the training returned it.
        base_model: What it was tuned from.
        model_name: As requests name it, and of the objects.
        objects: YAML, one document an object.
        endpoint: JSON: what is behind the endpoint, its verdict, its machines and their price.
        summary: The same as a table.
        force: Serve it although its verdict is not `pass`; the record says so.
        options: Of `ServeSettings`: `form`, `namespace`, `instance`, `max_length`, ...
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The endpoint's address, for `record_outcome`.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced; the model fits on no machine, or a cluster could
            not find it.
        DataError: The comparison is of another model, or its files changed since.
        ModelError: There is no model, or one that vLLM cannot serve.
    """
    from mixtune import storage as files
    from mixtune.prices import read_prices
    from mixtune.serve.serve_model import ServeRequest, serve_model, write_output
    from mixtune.settings.from_dict import from_dict
    from mixtune.settings.serving import ServeSettings

    files.configure_storage(storage)
    request = ServeRequest(
        name=model_name,
        model_uri=model_uri,
        base_model=base_model,
        comparison_path=comparison.path,
        force=force,
    )
    output = serve_model(request, from_dict(ServeSettings, options, "options"), read_prices())
    return write_output(output, objects.path, endpoint.path, summary.path)
