"""The size and the order of the code, at this tree and at any revision, by one command.

    python benchmarks/house.py --rev b36d641

prints one column for each revision and one for the working tree. Sources are `components/` and `pipelines/`.
`tests/test_budgets.py` holds the figures of the working tree under its ceilings.

- An *untyped look-up* is a subscript or `.get` by a constant string on a value that is not typed: what `read_json` or
  `read_manifest` returned, a parameter, field or variable annotated `dict[str, Any]`, and what is taken out of these.
- A look-up is *into another component's file* where its key is a field of a dataclass of `mixtune/artifacts` of the
  working tree, outside `artifacts/`, `storage/` and the modules that read formats of others (`FOREIGN`). Values with a
  name of their own are others' to define, and not followed: `JsonObject`, `TemplateValue`, `Row`, a user's `Options`.
- *Names* are all variables that an assignment, a loop, a `with` or a comprehension binds.
- A file has to be *edited to add a benchmark form* where it compares with, lists or passes the name of a form, or
  imports the modules of three forms.
- A *sentence* is prose of a Markdown file: no code blocks, tables, headings or pictures. Each list item ends one, and
  inline code is one word.
"""

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("components", "pipelines")
BLACK_LIST = re.compile(
    "asked|came|done|drawn|found|given|got|held|kept|known|left|made|meant|one|put|said|seen|taken|told|wanted"
)
READERS = {"read_json", "read_manifest"}
MODEL_FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "adapter_config.json"}
FOREIGN = ("sanitize/reading", "evaluate/benchmarks", "train/launcher", "commands/submit.py", "preflight/memory.py")
"""Modules that look into rows of outside data, Kubernetes objects, answers of Kubeflow and models' own configuration."""
FORMS = {"mmlu", "ifeval", "lm_eval", "nll", "classification", "multilabel", "generation"}
FORM_MODULES = {"mmlu", "ifeval", "lm_eval_task", "nll", "classification", "generation"}
MAX_FUNCTION = 60


@dataclass(frozen=True)
class Module:
    """A Python file of the sources: its path under the sources, its text and its syntax tree."""

    path: str
    lines: int
    tree: ast.Module

    @property
    def room(self) -> str:
        """First folder under the package, `(root)` for a module of its root, or `pipelines`."""
        parts = self.path.removeprefix("components/mixtune/").split("/")
        return parts[0] if len(parts) > 1 else "(root)"

    @property
    def is_interface(self) -> bool:
        """Whether it declares what KFP shows: a component's shell or a pipeline."""
        return self.path.endswith("/component.py") or self.path.startswith("pipelines/")


def read_modules(root: Path) -> list[Module]:
    modules = []
    for path in sorted(file for top in SOURCES for file in (root / top).rglob("*.py")):
        text = path.read_text()
        modules.append(Module(path.relative_to(root).as_posix(), len(text.splitlines()), ast.parse(text)))
    return modules


def nodes(modules: list[Module]) -> Iterator[ast.AST]:
    for module in modules:
        yield from ast.walk(module.tree)


def lines_by_room(modules: list[Module]) -> dict[str, int]:
    rooms: Counter[str] = Counter()
    for module in modules:
        rooms[module.room] += module.lines
    return dict(rooms.most_common())


def modules_by_folder(modules: list[Module]) -> dict[str, int]:
    """Modules in each folder, without `__init__.py`."""
    folders = Counter(
        module.path.rpartition("/")[0].removeprefix("components/")
        for module in modules
        if not module.path.endswith("__init__.py")
    )
    return dict(folders.most_common())


def black_listed_names(modules: list[Module]) -> tuple[Counter[str], int]:
    """Black-listed names by how often they are bound, and how often any name is bound."""
    names = Counter(
        node.id for node in nodes(modules) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return Counter({name: names[name] for name in names if BLACK_LIST.fullmatch(name)}), names.total()


def functions(modules: list[Module], interfaces: bool) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function as `path:name`, of shells and pipelines or of all others."""
    for module in modules:
        if module.is_interface == interfaces:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef):
                    yield f"{module.path}:{node.name}", node


def num_parameters(function: ast.FunctionDef) -> int:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in arguments if argument.arg not in ("self", "cls")])


def num_lines(function: ast.FunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def complexity(root: Path) -> int:
    """Largest cyclomatic complexity of a function, as ruff counts it."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--select", "C901"]
    command += ["--config", "lint.mccabe.max-complexity=4", "--output-format", "json", *SOURCES]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    counts = [re.search(r"\((\d+) >", item["message"]) for item in json.loads(answer.stdout)]
    return max(int(match[1]) for match in counts if match)


def is_untyped(annotation: ast.expr | None) -> bool:
    return annotation is not None and "dict[str, Any]" in ast.unparse(annotation)


class Untyped:
    """The names of one function that hold untyped values, followed through its assignments and loops."""

    def __init__(self, function: ast.FunctionDef, fields: set[str]) -> None:
        arguments = [*function.args.args, *function.args.kwonlyargs]
        self.names = fields | {argument.arg for argument in arguments if is_untyped(argument.annotation)}
        self.function = function
        for _ in range(3):  # a name may be bound before, in the text, what it is taken from
            for node in ast.walk(function):
                self.follow(node)

    def follow(self, node: ast.AST) -> None:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and self.holds(node.value):
            targets = node.targets
        if isinstance(node, ast.AnnAssign) and is_untyped(node.annotation):
            targets = [node.target]
        if isinstance(node, ast.For | ast.comprehension) and self.holds(node.iter):
            targets = [node.target]
        for target in targets:
            self.names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}

    def holds(self, value: ast.expr) -> bool:
        """Whether an expression is untyped: read from a file, or taken out of what is."""
        match value:
            case ast.Name():
                return value.id in self.names
            case ast.Attribute():
                return f".{value.attr}" in self.names
            case ast.Subscript():
                return self.holds(value.value)
            case ast.BoolOp():
                return any(map(self.holds, value.values))
            case ast.IfExp():
                return self.holds(value.body) or self.holds(value.orelse)
            case ast.Call(func=ast.Attribute(attr="get" | "values" | "items", value=taken_from)):
                return self.holds(taken_from)
            case ast.Call(func=ast.Name(id="dict" | "list" | "sorted" | "enumerate" | "zip")):
                return any(map(self.holds, value.args))
            case ast.Call():
                name = getattr(value.func, "attr", getattr(value.func, "id", ""))
                texts = {node.value for node in ast.walk(value) if isinstance(node, ast.Constant)}
                return name in READERS and not texts & MODEL_FILES
        return False

    def keys(self) -> Iterator[tuple[int, int, str]]:
        """Line, column and key of each look-up."""
        for node in ast.walk(self.function):
            key: ast.expr | None = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and self.holds(node.value):
                key = node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                key = node.args[0] if node.args and self.holds(node.func.value) else None
            if isinstance(node, ast.expr) and isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield node.lineno, node.col_offset, key.value


def untyped_lookups(modules: list[Module]) -> dict[str, list[str]]:
    """Keys of untyped look-ups by module, outside `artifacts/`, `storage/` and `FOREIGN`."""
    lookups = {}
    for module in modules:
        path = module.path.removeprefix("components/mixtune/")
        if path.startswith(("artifacts/", "storage/", *FOREIGN)):
            continue
        classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        fields = {
            f".{item.target.id}"
            for node in classes
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and is_untyped(item.annotation)
        }
        keys: set[tuple[int, int, str]] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef):
                keys |= set(Untyped(node, fields).keys())
        if keys:
            lookups[path] = [key for _, _, key in sorted(keys)]
    return lookups


def artifact_fields(root: Path) -> set[str]:
    """Names of the fields of all dataclasses in `mixtune/artifacts`."""
    return {
        item.target.id
        for path in (root / "components" / "mixtune" / "artifacts").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def files_of_a_form(modules: list[Module]) -> list[str]:
    """Files that a new benchmark form has to be written into, beside its own."""
    files = []
    for module in modules:
        if module.path.startswith("components/mixtune/") and module.room not in ("demo", "artifacts"):
            imported = {
                alias.name.split(".")[-1]
                for node in ast.walk(module.tree)
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            if any(map(names_a_form, ast.walk(module.tree))) or len(imported & FORM_MODULES) >= 3:
                files.append(module.path.removeprefix("components/mixtune/"))
    return files


def names_a_form(node: ast.AST) -> bool:
    def named(value: ast.AST | None) -> set[str]:
        return (
            {str(item.value) for item in ast.walk(value) if isinstance(item, ast.Constant)} & FORMS if value else set()
        )

    match node:
        case ast.Compare():
            return any(
                named(item)
                for item in (node.left, *node.comparators)
                if isinstance(item, ast.Constant | ast.Tuple | ast.Set | ast.List)
            )
        case ast.Dict():
            return len({name for key in node.keys for name in named(key)}) >= 2
        case ast.keyword(arg="form"):
            return bool(named(node.value))
    return False


def sentence_lengths(text: str) -> list[int]:
    """Words of each sentence of a Markdown text's prose."""
    text = re.sub(r"^```.*?^```", "\n\n", text, flags=re.M | re.S)
    text = re.sub(r"^(\||#|!\[|<!--).*$", "\n", text, flags=re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"^ *([-*]|\d+\.) ", "\n\n", text, flags=re.M)
    sentences = re.split(r"\n\s*\n|(?<=[.!?])[\"*_)]*\s+(?=[A-Z\"*_(\[`]|code)", text)
    return [len(sentence.split()) for sentence in sentences if sentence and len(sentence.split()) > 1]


def percentile(values: list[int], percent: int) -> int:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def figures(root: Path, artifacts: Path = ROOT) -> dict[str, float]:
    """Every figure that has a budget, by its name in the table."""
    modules = read_modules(root)
    sources = list(nodes(modules))
    bound, num_bound = black_listed_names(modules)
    lookups = untyped_lookups(modules)
    fields = artifact_fields(artifacts)
    others = [function for _, function in functions(modules, interfaces=False)]
    table: dict[str, float] = {
        "lines of components and pipelines": sum(module.lines for module in modules),
        "files": len(modules),
        "modules in the fullest folder": max(modules_by_folder(modules).values()),
        "lines of the longest file": max(module.lines for module in modules),
        "dict[str, Any]": sum(
            isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]" for node in sources
        ),
        "Any": sum(isinstance(node, ast.Name) and node.id == "Any" for node in sources),
        "untyped look-ups by string": sum(map(len, lookups.values())),
        "of these into another component's file": sum(key in fields for keys in lookups.values() for key in keys),
        "black-listed names per 1,000": round(1000 * bound.total() / num_bound, 1),
        "parameters outside shells and pipelines": max(map(num_parameters, others)),
        "parameters of shells and pipelines": max(
            num_parameters(item) for _, item in functions(modules, interfaces=True)
        ),
        f"functions over {MAX_FUNCTION} lines": sum(num_lines(item) > MAX_FUNCTION for item in others),
        "complexity": complexity(root),
        "files edited to add a benchmark form": len(files_of_a_form(modules)),
    }
    for name, path in (("README", "README.md"), ("guide", "docs/guide.md")):
        lengths = sentence_lengths((root / path).read_text())
        table[f"words a sentence, {name}, median"] = statistics.median_low(lengths)
        table[f"words a sentence, {name}, 90th percentile"] = percentile(lengths, 90)
    return table


def unpack(revision: str, folder: Path) -> Path:
    """A revision's files, in a folder of its own."""
    command = ["git", "archive", revision, *SOURCES, "README.md", "docs"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def print_table(title: str, columns: dict[str, dict[str, float]]) -> None:
    print(f"| {title} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for row in dict.fromkeys(name for column in columns.values() for name in column):
        cells = [f"{column[row]:,}" if row in column else "" for column in columns.values()]
        print(f"| {row} | {' | '.join(cells)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the figures of the house.")
    parser.add_argument("--rev", action="append", default=[], help="a git revision to set beside the working tree")
    parser.add_argument(
        "--where", action="store_true", help="say where the working tree's look-ups, names and forms are"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = {revision: unpack(revision, Path(folder) / revision) for revision in options.rev} | {"tree": ROOT}
        modules = {name: read_modules(root) for name, root in roots.items()}
        print_table("figure", {name: figures(root) for name, root in roots.items()})
        print_table("lines by room", {name: {**lines_by_room(items)} for name, items in modules.items()})
        print_table("modules by folder", {name: {**modules_by_folder(items)} for name, items in modules.items()})
    if options.where:
        print_places(modules["tree"])


def print_places(modules: list[Module]) -> None:
    fields = artifact_fields(ROOT)
    for path, keys in untyped_lookups(modules).items():
        theirs = Counter(key for key in keys if key in fields)
        print(f"{path}: {len(keys)} untyped look-ups, {theirs.total()} of another's file {dict(theirs)}")
    print(f"names: {dict(black_listed_names(modules)[0].most_common())}")
    print(f"a form is named in: {', '.join(files_of_a_form(modules))}")
    long = {
        name: num_lines(item) for name, item in functions(modules, interfaces=False) if num_lines(item) > MAX_FUNCTION
    }
    print(f"long functions: {long}")


if __name__ == "__main__":
    main()
