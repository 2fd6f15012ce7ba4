"""Turn a service's tuning job into arguments of `finetune`: settings, files, and what is still to be given."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.reading.readers import read_rows, source_files
from mixtune.settings.mix import read_mix_settings
from mixtune.settings.train import TrainSettings
from mixtune.tuning_import.services import Json, TuningJob
from mixtune.tuning_import.settings_map import Mapped, map_settings

WAYS = {
    "base_model": "an open model: a folder, s3://..., or org/name@commit; `mixtune run compare_models` chooses of two",
    "general_pools": "what the model must not forget; `mixtune pools` lists open sets and writes their entries",
}
"""How to come by an argument that no export holds."""


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What an export does not hold, and a user says."""

    files: str = ""
    """Folder with the files that the export names by id or by an address elsewhere."""
    training: str = ""
    """The training records themselves, in place of those of the export."""
    validation: str = ""
    base_model: str = ""
    general_pools: list[dict[str, object]] = field(default_factory=list)
    benchmarks: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImportedTuning:
    """A job as a run of ours."""

    job: TuningJob
    arguments: Json
    """Of `finetune`."""
    lines: tuple[Mapped, ...]
    missing: tuple[str, ...]
    """Arguments that are still to be given, with the way to them."""
    num_records: int
    """Of the training file; 0: it is not here."""


def import_job(job: TuningJob, additions: Additions) -> ImportedTuning:
    """Return the arguments of `finetune` that do what a job did, on an open model and without forgetting.

    Raises:
        ConfigError: A setting that cannot be, or a file that several names fit.
        DataError: A training file that cannot be read.
    """
    arguments, lines = map_settings(job)
    check_arguments(arguments)
    missing = []
    for name, option, stated, ours in (
        ("customer_uri", "--training", job.training, additions.training),
        ("test_uri", "--validation", job.validation, additions.validation),
    ):
        if path := ours or find_file(stated, additions.files):
            arguments[name] = path
            lines.append(Mapped(setting=name.removesuffix("_uri"), value=stated or path, becomes=f"{name}={path}"))
        elif stated or name == "customer_uri":
            missing.append(f"{name}: {stated or 'the records'}: download it, and give --files FOLDER or {option} FILE")
    note = "its weights can be had: take them" if job.is_open else "its weights cannot be had: take an open model"
    ours = additions.base_model and f"base_model={additions.base_model}"
    lines.append(Mapped(setting="base model", value=job.base_model, becomes=ours, note=job.base_model and note))
    for name, value in (
        ("base_model", additions.base_model),
        ("general_pools", additions.general_pools),
        ("benchmarks", additions.benchmarks),
    ):
        if value:
            arguments[name] = value
        elif name in WAYS:
            missing.append(f"{name}: {WAYS[name]}")
    return ImportedTuning(
        job=job,
        arguments=arguments,
        lines=tuple(lines),
        missing=tuple(missing),
        num_records=count_records(str(arguments.get("customer_uri", ""))),
    )


def find_file(name: str, folder: str) -> str:
    """Return where a file that an export names lies: itself, where it can be read, or its copy in a folder.

    A copy has the same name, with an ending or without, or begins with the id that the export has; of a table `a.b.c`
    it is called `c`.

    Raises:
        ConfigError: Several files fit.
    """
    if storage.is_s3(name) or (name and "://" not in name and storage.file_exists(name)):
        return name
    if not name or not folder:
        return ""
    last = PurePosixPath(name.partition("://")[2] or name).name
    paths = [entry.path for entry in storage.list_files(folder)]
    for fits in (
        [path for path in paths if PurePosixPath(path).name == last],
        [path for path in paths if PurePosixPath(path).stem == last],
        [path for path in paths if PurePosixPath(path).name.startswith(last)],
        [path for path in paths if PurePosixPath(path).stem == last.rpartition(".")[2]],
    ):
        if len(fits) > 1:
            raise ConfigError(f"{name}: {', '.join(fits)} of {folder} fit; give --training or --validation")
        if fits:
            return storage.join(folder, fits[0])
    return ""


def check_arguments(arguments: Json) -> None:
    """Construct the settings of mix and training, so that a value out of range is refused here.

    Raises:
        ConfigError: There is one.
    """
    mix, train = (arguments.get(name, {}) for name in ("mix_options", "train_options"))
    assert isinstance(mix, dict) and isinstance(train, dict)
    parameters: Json = {"customer_data_percent": 50.0}
    parameters |= {name: arguments[name] for name in ("customer_epochs", "max_steps", "seed") if name in arguments}
    read_mix_settings(parameters, mix)
    rate = {name: arguments[name] for name in ("learning_rate",) if name in arguments}
    TrainSettings.from_options(train, method=arguments.get("method", "lora"), **rate)


def count_records(uri: str) -> int:
    """Return how many rows a training file has that can be read; 0: it is not on this machine.

    Raises:
        DataError: It has none, or cannot be read.
    """
    if not uri or "://" in uri:
        return 0
    count = 0
    for file in source_files(uri):
        try:
            count += sum(1 for row in read_rows(file) if not row.problem)
        except DataError as error:
            raise DataError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
    if not count:
        raise DataError(f"{uri}: there is no record in it that can be read; --training takes another file")
    return count
