"""The commands of a model that passed: `register` it, `serve` writes its Kubernetes objects, `bedrock` checks it."""

import argparse
import os
import shlex
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.typed_json import write_artifact
from mixtune.commands.arguments import Commands, add_work_dir, read_entry
from mixtune.commands.local.use_model import TunedModel, add_model, find_model
from mixtune.commands.local.work_dir import WorkDir
from mixtune.errors import ConfigError
from mixtune.preflight.checks import SHORT_TRIES
from mixtune.prices import read_prices
from mixtune.registry.registration import Registration, register_model
from mixtune.report.next_steps import command_of
from mixtune.report.pages import write_text
from mixtune.serve.bedrock_check import FAIL, check_import
from mixtune.serve.bedrock_files import write_older_files
from mixtune.serve.bedrock_rules import read_rules
from mixtune.serve.serve_model import ServeRequest, serve_model
from mixtune.settings.from_dict import from_dict
from mixtune.settings.model_registry import KUBEFLOW, RegistrySettings
from mixtune.settings.serving import ServeSettings
from mixtune.tracking import Tracking


def add_commands(commands: Commands) -> None:
    """Add `register`, `serve` and `bedrock` to the command line."""
    register = commands.add_parser("register", help="put a model that passed into MLflow's registry or Kubeflow's")
    _add_proved_model(register)
    register.add_argument("--licence", default="", help="of the base model; else as its files say")
    register.add_argument("--card", default="model-card.md", metavar="FILE", help="its card (default: %(default)s)")
    register.add_argument("arguments", nargs="*", metavar="key=value", help="of the registry, such as kind=kubeflow")
    register.set_defaults(command=_register)
    serve = commands.add_parser("serve", help="write the Kubernetes objects that serve a model")
    _add_proved_model(serve)
    serve.add_argument(
        "--prices", default="", metavar="FILE", help="a price table in the form of mixtune's prices.toml"
    )
    serve.add_argument("--out", default="serve.yaml", metavar="FILE", help="the objects (default: %(default)s)")
    serve.add_argument("arguments", nargs="*", metavar="key=value", help="settings, such as form=deployment")
    serve.set_defaults(command=_serve)
    bedrock = commands.add_parser("bedrock", help="would Amazon Bedrock's Custom Model Import take a model?")
    bedrock.add_argument("model", help="a whole model: a run here, or a folder, local or s3://")
    add_work_dir(bedrock)
    bedrock.add_argument("--out", default="", metavar="FOLDER", help="write the two files that need other words there")
    bedrock.set_defaults(command=_bedrock, base_model="", report="")


def _add_proved_model(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--name", required=True, help="of the model, as requests and registries name it")
    parser.add_argument("--report", default="", metavar="FILE", help="its proof, where a folder is named: a comparison")
    parser.add_argument("--force", action="store_true", help="although it did not pass; the record says so")


def _proved_model(options: argparse.Namespace) -> tuple[TunedModel, str]:
    """Return the model that a command line names, and the report that proves it.

    Raises:
        ConfigError: The model has still to be written.
    """
    model, work = find_model(options), WorkDir.at(options.work_dir)
    if model.strength < 1:
        way = command_of("mixtune", "merge", options.model, "--out", "FOLDER")
        raise ConfigError(f"it is recommended at strength {model.strength:g}, as which no file has it yet; {way}")
    return model, options.report or (str(work.report(options.model, "json")) if model.run_id else "")


def _register(options: argparse.Namespace) -> int:
    settings = from_dict(RegistrySettings, read_values(options.arguments), "registry")
    model, report = _proved_model(options)
    if not report:
        raise ConfigError(f"{options.model}: only what passed is registered; name a run, or its comparison by --report")
    request = Registration(
        comparison_path=report,
        model_uri=model.model_uri,
        base_model=model.base_model,
        name=options.name,
        licence=options.licence,
        force=options.force,
    )
    work = WorkDir.at(options.work_dir)
    for name, value in SHORT_TRIES.items():
        os.environ.setdefault(name, value)
    tracking = work.arguments(model.run_id).get("tracking") if model.run_id else None
    where = Tracking.from_options({"uri": os.environ.get("MLFLOW_TRACKING_URI") or work.mlflow_uri, **(tracking or {})})
    register_model(request, options.card, settings, where)
    print(f"its card: {options.card}")
    if settings.kind != KUBEFLOW:
        print(f"MLflow: {command_of('mlflow', 'ui', '--backend-store-uri', where.uri)}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    settings = from_dict(ServeSettings, read_values(options.arguments), "serve")
    record = Path(options.out).with_suffix(".json")
    if record == Path(options.out):
        raise ConfigError(f"--out {options.out}: the record of the endpoint goes there; name the objects with .yaml")
    model, report = _proved_model(options)
    request = ServeRequest(
        name=options.name,
        model_uri=model.model_uri,
        base_model=model.base_model,
        comparison_path=report,
        force=options.force,
    )
    output = serve_model(request, settings, read_prices(options.prices))
    write_text(options.out, output.objects)
    write_artifact(str(record), output.endpoint)
    print(output.summary)
    print(f"{shlex.join(['kubectl', 'apply', '-f', options.out])}   (the record of the endpoint: {record})")
    return 0


def _bedrock(options: argparse.Namespace) -> int:
    work = WorkDir.at(options.work_dir)
    is_run = work.record(options.model)
    if not is_run and not storage.exists(storage.plain_uri(options.model)):
        raise ConfigError(f"{options.model}: no run in {work.root} and no folder; `mixtune runs` lists the runs")
    model, rules = _proved_model(options)[0].model_uri if is_run else options.model, read_rules()
    print(f"rules of {rules.date}: {rules.source}")
    if options.out:
        plain = storage.plain_uri(model)
        names = write_older_files(plain, options.out)
        print(f"written to {options.out}, for transformers {rules.transformers}: {', '.join(names)}")
    outcomes = check_import(model, older=options.out)
    for name, outcome, text in outcomes:
        print(f"{outcome:<4}  {name}: {text}")
    return 1 if any(outcome == FAIL for _, outcome, _ in outcomes) else 0


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
        values[key] = read_entry(value)
    return values
