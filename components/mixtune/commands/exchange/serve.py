"""The commands of a model that passed: `serve` writes its Kubernetes objects, `bedrock` checks it for an import."""

import argparse
import json
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.typed_json import write_artifact
from mixtune.commands.arguments import Commands
from mixtune.errors import ConfigError
from mixtune.prices import read_prices
from mixtune.serve.bedrock_check import FAIL, check_import
from mixtune.serve.bedrock_files import write_older_files
from mixtune.serve.bedrock_rules import read_rules
from mixtune.serve.serve_model import ServeRequest, serve_model
from mixtune.settings.from_dict import from_dict
from mixtune.settings.serving import ServeSettings


def add_commands(commands: Commands) -> None:
    """Add `serve` and `bedrock` to the command line."""
    serve = commands.add_parser("serve", help="write the Kubernetes objects that serve a model")
    serve.add_argument("model", help="adapter or whole model: a folder, local or s3://, with its #digest")
    serve.add_argument("--base-model", required=True, help="what it was tuned from")
    serve.add_argument("--name", required=True, help="as requests name the model, and of the objects")
    serve.add_argument("--report", default="", metavar="FILE", help="a run's comparison, grid or ladder: its proof")
    serve.add_argument("--force", action="store_true", help="although it did not pass; the record says so")
    serve.add_argument(
        "--prices", default="", metavar="FILE", help="a price table in the form of mixtune's prices.toml"
    )
    serve.add_argument("--out", default="serve.yaml", metavar="FILE", help="the objects (default: %(default)s)")
    serve.add_argument("arguments", nargs="*", metavar="key=value", help="settings, such as form=deployment")
    serve.set_defaults(command=_serve)
    bedrock = commands.add_parser("bedrock", help="would Amazon Bedrock's Custom Model Import take a model?")
    bedrock.add_argument("model", help="a whole model: a folder, local or s3://")
    bedrock.add_argument("--out", default="", metavar="FOLDER", help="write the two files that need other words there")
    bedrock.set_defaults(command=_bedrock)


def _serve(options: argparse.Namespace) -> int:
    settings = from_dict(ServeSettings, read_values(options.arguments), "serve")
    request = ServeRequest(
        name=options.name,
        model_uri=options.model,
        base_model=options.base_model,
        comparison_path=options.report,
        force=options.force,
    )
    output = serve_model(request, settings, read_prices(options.prices))
    Path(options.out).write_text(output.objects, encoding="utf-8")
    record = Path(options.out).with_suffix(".json")
    write_artifact(str(record), output.endpoint)
    print(output.summary)
    print(f"kubectl apply -f {options.out}   (the record of the endpoint: {record})")
    return 0


def _bedrock(options: argparse.Namespace) -> int:
    rules = read_rules()
    print(f"rules of {rules.date}: {rules.source}")
    if options.out:
        plain = storage.split_fingerprint(options.model)[0]
        names = write_older_files(plain, options.out)
        print(f"written to {options.out}, for transformers {rules.transformers}: {', '.join(names)}")
    outcomes = check_import(options.model)
    for name, outcome, text in outcomes:
        print(f"{outcome:<4}  {name}: {text}")
    return 2 if any(outcome == FAIL for _, outcome, _ in outcomes) else 0


def read_values(texts: list[str]) -> dict[str, object]:
    """Return settings given as `key=value`; a value is JSON, else the text itself.

    Raises:
        ConfigError: A text without `=`, or a key that is given twice.
    """
    values: dict[str, object] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key in values:
            raise ConfigError(f"{text!r}: a setting is written key=value, each once")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values
