"""Where the objects of a served model, its record and its summary go."""

from mixtune.artifacts.typed_json import write_artifact
from mixtune.report import pages
from mixtune.serve.serve_model import ServeOutput


def write_output(output: ServeOutput, objects_path: str, endpoint_path: str, summary_path: str) -> str:
    """Write what was made to its files; return the endpoint's address."""
    pages.write_text(objects_path, output.objects)
    pages.write_text(summary_path, output.summary)
    write_artifact(endpoint_path, output.endpoint)
    print(f"serve: {output.endpoint.url}", flush=True)
    return output.endpoint.url
