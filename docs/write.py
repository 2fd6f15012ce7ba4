"""Write what documentation says of the code from the code: component READMEs, and the tree in ARCHITECTURE.md.

`make docs` runs it; a test checks that nothing would change.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "components" / "mixtune"
BEGIN, END = "<!-- tree: written by make docs -->", "<!-- end of tree -->"
SOURCES = ("components/mixtune", "pipelines", "images", "kustomize", "policies", "benchmarks", "docs", "examples")


def texts() -> dict[Path, str]:
    """Every written file with what it should say."""
    sys.path.insert(0, str(ROOT))
    from pipelines.compile import components

    by_part: dict[Path, list[object]] = {}
    for path, shell in components().items():
        by_part.setdefault(path.parent, []).append(shell)
    readmes = {part / "README.md": readme(part.name, shells) for part, shells in by_part.items()}
    architecture = ROOT / "ARCHITECTURE.md"
    before, _, rest = architecture.read_text().partition(BEGIN)
    return {**readmes, architecture: f"{before}{BEGIN}\n\n```\n{tree()}```\n\n{END}{rest.partition(END)[2]}"}


def readme(part: str, shells: list) -> str:
    """The README of a component folder."""
    blocks = [f"# {part}\n\nWritten from the docstrings by `make docs`.\n"]
    for shell in sorted(shells, key=lambda item: item.python_func.__name__):
        function = shell.python_func
        summary, _, sections = inspect.getdoc(function).partition("\nArgs:")
        arguments, _, returns = sections.partition("\nReturns:")
        returns, _, raises = returns.partition("\nRaises:")
        blocks.append(f"## {function.__name__}\n\n{summary.strip()}\n\n{inputs(shell, described(arguments))}")
        blocks += [f"**Outputs**\n\n{outputs(shell, returns)}"]
        if raises.strip():
            blocks.append(
                "**Errors**\n\n" + "\n".join(f"- `{key}`: {text}" for key, text in described(raises).items()) + "\n"
            )
        blocks.append(
            f"Reuse: `from mixtune.{part}.component import {function.__name__}`, or load `{function.__name__}.yaml`.\n"
        )
    return "\n".join(blocks)


def inputs(shell: object, texts: dict[str, str]) -> str:
    """A table of a component's inputs."""
    spec = shell.component_spec
    rows = ["| input | type | default | meaning |", "|---|---|---|---|"]
    for name, item in (spec.inputs or {}).items():
        kind = item.type.split("@")[0].removeprefix("system.")
        default = "" if not item.optional else "none" if item.default is None else f"`{item.default!r}`"
        rows.append(f"| `{name}` | {kind} | {default} | {texts.get(name, '')} |")
    return "\n".join(rows) + "\n"


def outputs(shell: object, returns: str) -> str:
    """A list of a component's outputs."""
    texts, plain = described(returns), " ".join(returns.split())
    rows = []
    for name, item in (shell.component_spec.outputs or {}).items():
        kind = item.type.split("@")[0].removeprefix("system.")
        rows.append(f"- `{name}` ({kind}): {texts.get(name) or (plain if name == 'Output' else '')}".rstrip(": "))
    return "\n".join(rows) + "\n"


def described(section: str) -> dict[str, str]:
    """`name: text` entries of a docstring's section, lines joined."""
    entries: dict[str, str] = {}
    for match in re.finditer(r"^    (\w+): (.*(?:\n {6,}.*|\n(?=\n))*)", section, re.M):
        entries[match[1]] = " ".join(match[2].split()).replace("|", "\\|")
    return entries


def tree() -> str:
    """The files of the project, each with the first line of what it says of itself."""
    lines = []
    for top in SOURCES:
        for path in sorted((ROOT / top).rglob("*")):
            if (
                path.is_file()
                and path.suffix in (".py", ".toml")
                and path.stat().st_size
                and "__pycache__" not in path.parts
            ):
                name = path.relative_to(ROOT).as_posix()
                lines.append(f"{name:<46} {first_line(path)}\n")
    return "".join(lines)


def first_line(path: Path) -> str:
    """The first sentence of a Python file's docstring, or of a TOML file's comment."""
    text = path.read_text()
    if path.suffix == ".toml":
        return text.splitlines()[0].lstrip("# ")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].rstrip(".")


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
