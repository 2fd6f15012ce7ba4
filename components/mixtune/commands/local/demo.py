"""The command `demo`: see a model forget, and not forget."""

import argparse
import json
from pathlib import Path

from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.argument_places import Place, change_places
from mixtune.commands.arguments import find_pipeline
from mixtune.commands.local.run import run_pipeline
from mixtune.commands.local.run_ending import print_next_steps
from mixtune.commands.local.work_dir import WorkDir
from mixtune.demo.demo_data import World, write_world
from mixtune.demo.real_model import write_real_world
from mixtune.demo.show import format_grid
from mixtune.errors import ConfigError
from mixtune.report.next_steps import command_of


def demo_command(options: argparse.Namespace) -> int:
    """Write the demo's world, run the grid of mixes on it and print the results."""
    if options.epochs is not None and options.epochs <= 0:
        raise ConfigError(f"--epochs is above 0; got {options.epochs:g}")
    work = WorkDir.at(options.work_dir)
    world_dir = work.root / ("real-world" if options.real else "world")
    folder = Path(options.write_only).expanduser().resolve() if options.write_only else world_dir
    try:
        world = (write_real_world if options.real else write_world)(folder, options.seed)
    except OSError as error:
        raise ConfigError(f"{folder}: it cannot be written ({error.strerror}); name another folder") from error
    if options.write_only:
        _write_arguments(world, folder, options)
        return 0
    arguments = world.grid_arguments(options.method, options.epochs or 0.0)
    percents = arguments["customer_data_percents"]
    print(f"\n== mix_grid with customer_data_percents={percents}, method={options.method} ==", flush=True)
    run = run_pipeline(find_pipeline("mix_grid"), arguments, work)
    grid = read_artifact(GridReport, str(work.report(run.run_id, "json")))
    print(f"\n{format_grid(grid)}\n")
    print(f"An interval holds the one-sided 95 % bounds of the difference to the base model.\n\n{grid.reason}\n")
    print_next_steps(run, work)
    return 0


def _write_arguments(world: World, folder: Path, options: argparse.Namespace) -> None:
    """Write files of arguments that can be moved together with what they name."""

    def below(place: Place) -> str:
        return place.text.removeprefix(f"{folder}/")

    grid, single = world.grid_arguments(options.method, options.epochs or 0.0), world.arguments(options.method, 75.0)
    for name, values in {"finetune": single, "mix_grid": grid}.items():
        (folder / f"{name}.json").write_text(json.dumps(change_places(values, below), indent=1) + "\n")
    command = command_of("mixtune", "run", "finetune", "--arguments", str(folder / "finetune.json"))
    print(f"the demo's files are in {folder}; run: {command}")
