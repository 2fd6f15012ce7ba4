"""Make a model ready to be served: look at it, size it, write the objects and a record of the endpoint."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from mixtune.artifacts.endpoint import ServedEndpoint
from mixtune.artifacts.run_report import read_proof
from mixtune.artifacts.typed_json import write_artifact
from mixtune.prices import Prices
from mixtune.report import pages
from mixtune.serve.kserve_objects import inference_service, llm_inference_service
from mixtune.serve.served_model import ServedModel, read_served_model
from mixtune.serve.sizing import ServingPlan, plan_serving
from mixtune.serve.vllm_deployment import deployment
from mixtune.serve.vllm_pod import Object
from mixtune.settings.serving import DEPLOYMENT, INFERENCE, LLM, SUFFIXES, ServeSettings

WRITERS: dict[str, Callable[[ServedModel, ServingPlan, ServeSettings], list[Object]]] = {
    LLM: llm_inference_service,
    INFERENCE: inference_service,
    DEPLOYMENT: deployment,
}
ENDPOINTS = {
    LLM: "https://{service}.{namespace}.svc.cluster.local:8000/v1",
    INFERENCE: "http://{service}.{namespace}.svc.cluster.local/v1",
    DEPLOYMENT: "http://{service}.{namespace}.svc.cluster.local:8000/v1",
}
"""By form: the service within the cluster; a gateway's address stands in the object's status."""


@dataclass(frozen=True, kw_only=True)
class ServeRequest:
    """A request to serve a model."""

    name: str
    """As requests name it, and of the objects."""
    model_uri: str
    """With its digest where there is a comparison."""
    base_model: str
    comparison_path: str = ""
    """A run's report with the model in it; empty: nothing is proved, and the record says so."""
    force: bool = False
    """Serve it although it did not pass; the record says so."""


@dataclass(frozen=True, kw_only=True)
class ServeOutput:
    """What was made."""

    objects: str
    """YAML, one document an object."""
    endpoint: ServedEndpoint
    summary: str
    """Markdown."""


def serve_model(request: ServeRequest, settings: ServeSettings, prices: Prices) -> ServeOutput:
    """Write the objects that serve a model, on one of the machines that have a price.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced; the model fits on no machine, or a cluster could
            not find it.
        DataError: The comparison is of another model, or its files changed since.
        ModelError: There is no model, or one that vLLM cannot serve.
    """
    settings.check_name(request.name)
    verdict = ""
    if request.comparison_path:
        path = request.comparison_path
        verdict = read_proof(path, request.model_uri, "is served", force=request.force).verdict
    model = read_served_model(request.name, request.model_uri, request.base_model, settings)
    plan = plan_serving(model, settings, prices)
    text = yaml.safe_dump_all(WRITERS[settings.form](model, plan, settings), sort_keys=False, width=120)
    endpoint = ServedEndpoint(
        name=request.name,
        url=ENDPOINTS[settings.form].format(
            service=f"{request.name}{SUFFIXES[settings.form]}", namespace=settings.namespace
        ),
        model_uri=request.model_uri,
        base_model=request.base_model,
        verdict=verdict,
        form=settings.form,
        instance=plan.instance.name,
        gpus=plan.gpus,
        replicas=settings.replicas,
        usd_per_hour=round(settings.replicas * plan.usd_per_hour, 4),
        objects_digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    return ServeOutput(objects=text, endpoint=endpoint, summary=_summarize(endpoint, model, plan))


def write_output(output: ServeOutput, objects_path: str, endpoint_path: str, summary_path: str) -> str:
    """Write what was made to its files; return the endpoint's address."""
    pages.write_text(objects_path, output.objects)
    pages.write_text(summary_path, output.summary)
    write_artifact(endpoint_path, output.endpoint)
    print(f"serve: {output.endpoint.url}", flush=True)
    return output.endpoint.url


def _summarize(endpoint: ServedEndpoint, model: ServedModel, plan: ServingPlan) -> str:
    rows = [
        ["model", endpoint.name],
        ["verdict", endpoint.verdict or "none: no comparison was given"],
        ["base", model.base_uri],
        ["adapter", f"{model.adapter_uri}, rank {model.rank}" if model.adapter_uri else "none: whole weights"],
        ["longest request", f"{plan.max_length:,} tokens"],
        ["takes", plan.line()],
        ["endpoint", endpoint.url],
    ]
    return f"# Serving {endpoint.name}\n\n{pages.markdown_table(['what', 'value'], rows)}\n"
