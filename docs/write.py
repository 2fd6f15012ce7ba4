"""Write what documentation says of the code from the code; `make docs` runs it, and a test checks that nothing changes.

- `README.md` of every room: its row of ARCHITECTURE.md's table, its modules, its components.
- `docs/pipelines.md`: every pipeline's parameters, from the compiled YAML.
- `docs/settings.md`: every setting, from the dataclasses of `mixtune/settings`.
- `docs/formats.md`: every file that crosses a task's border, from the dataclasses of `mixtune/artifacts`.
- `docs/data.md`, its block of forms: every form of row that the tests hold, read or refused by the schemas.
- `docs/models.md`, its blocks: what every model type does, from `mixtune/artifacts/architectures.json`, and what is
  learned by published chat templates, from `tests/chat/families.json`.
- `docs/scoring.md`, its block of benchmarks: what becomes of published ones, from `tests/evaluate/published_layouts.*`.
- `benchmarks/README.md`: every benchmark with its results.
"""

import ast
import importlib
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import yaml

from mixtune.records import Message

if TYPE_CHECKING:
    from mixtune.artifacts.model import Architecture

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "components" / "mixtune"
COLUMNS = ("job", "reads", "writes", "may import")
NOTE = "Written from the code by `make docs`"


def texts() -> dict[Path, str]:
    """Return every written file with what it should say."""
    sys.path.insert(0, str(ROOT))
    from pipelines.compile import components, pipelines

    shells: dict[str, list[Any]] = {}
    for path, shell in components().items():
        shells.setdefault(path.parent.name, []).append(shell)
    rooms = {name: row for name, row in room_rows().items() if (PACKAGE / name).is_dir() and modules(PACKAGE / name)}
    return {
        **{PACKAGE / name / "README.md": room_readme(name, row, shells.get(name, [])) for name, row in rooms.items()},
        ROOT / "docs" / "pipelines.md": pipelines_page(pipelines()),
        ROOT / "docs" / "formats.md": formats_page(),
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "data.md": with_block((ROOT / "docs" / "data.md").read_text(), "forms", forms_tables()),
        ROOT / "docs" / "models.md": models_page(),
        ROOT / "docs" / "scoring.md": with_block(
            (ROOT / "docs" / "scoring.md").read_text(), "benchmarks", published_benchmarks()
        ),
        ROOT / "benchmarks" / "README.md": benchmarks_page(),
    }


def room_rows() -> dict[str, dict[str, str]]:
    """Return the rows of ARCHITECTURE.md's table of rooms: cells by column, by the room's name."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows: dict[str, dict[str, str]] = {}
    for line in re.findall(r"^\| `(\w+)` (\|.*)\|$", text.partition("## Rooms")[2].partition("\n## ")[0], re.M):
        cells = [cell.strip() for cell in line[1].split("|")[1:]]
        rows[line[0]] = dict(zip(COLUMNS, cells, strict=True))
    return rows


def room_readme(room: str, row: dict[str, str], shells: list[Any]) -> str:
    """Return the README of a room: its row, its modules, and its components."""
    blocks = [f"# {room}\n\n{NOTE}; [ARCHITECTURE.md](../../../ARCHITECTURE.md) has the map.\n"]
    blocks += [table(("this room", ""), [(name, text) for name, text in row.items() if text])]
    blocks += ["## Modules\n", table(("module", "what it is"), modules(PACKAGE / room))]
    for shell in sorted(shells, key=lambda item: item.python_func.__name__):
        blocks += component(room, shell)
    return "\n".join(blocks)


def modules(folder: Path) -> list[tuple[str, str]]:
    """Return a folder's Python files, each with the first line of its docstring."""
    files = sorted(folder.rglob("*.py"), key=lambda path: (len(path.relative_to(folder).parts), path))
    return [
        (f"`{path.relative_to(folder).as_posix()}`", cell(first_line(path)))
        for path in files
        if "__pycache__" not in path.parts and path.stat().st_size
    ]


def component(room: str, shell: Any) -> list[str]:
    """Return the blocks of a component: what it does, inputs, outputs, errors, how to reuse it."""
    function = shell.python_func
    name, doc = function.__name__, sections(inspect.getdoc(function) or "")
    arguments, spec = entries(doc.get("Args", "")), shell.component_spec
    inputs = [
        (f"`{key}`", kind(item.type), default(item), arguments.get(key, ""))
        for key, item in (spec.inputs or {}).items()
    ]
    blocks = [f"## Component `{name}`\n\n{doc['']}\n"]
    if inputs:
        blocks += [table(("input", "type", "default", "meaning"), inputs)]
    if spec.outputs:
        outputs = [(key, kind(item.type), output_text(key, doc, arguments)) for key, item in spec.outputs.items()]
        blocks += [table(("output", "type", "meaning"), [(f"`{key}`", kind, text) for key, kind, text in outputs])]
    if "Raises" in doc:
        raised = entries(doc["Raises"]).items()
        blocks += [table(("error", "raised where"), [(f"`{key}`", text) for key, text in raised])]
    blocks += [f"Reuse: `from mixtune.{room}.component import {name}`, or load `{name}.yaml`.\n"]
    return blocks


def output_text(name: str, doc: dict[str, str], arguments: dict[str, str]) -> str:
    """Return what a docstring says of an output: artifacts stand among its arguments, parameters in what it returns."""
    returns = doc.get("Returns", "")
    return arguments.get(name) or entries(returns).get(name) or (cell(returns) if name == "Output" else "")


def sections(doc: str) -> dict[str, str]:
    """Return a docstring's sections (`Args`, `Returns`, `Raises`) by name, and what stands before them under ``."""
    parts = re.split(r"^(Args|Returns|Raises):\n", doc, flags=re.M)
    return {"": parts[0].strip(), **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> dict[str, str]:
    """Return the `name: text` entries of a docstring's section, lines joined."""
    matches = re.finditer(r"^    (\w+): (.*(?:\n {6,}.*|\n(?=\n))*)", section, re.M)
    return {match[1]: cell(match[2]) for match in matches}


def kind(name: str) -> str:
    """Return an input's or output's type as KFP's page shows it."""
    return name.split("@")[0].removeprefix("system.")


def default(item: Any) -> str:
    """Return an input's default: empty where it has none."""
    if not item.optional:
        return ""
    return "none" if item.default is None else f"`{item.default!r}`"


def pipelines_page(pipelines: dict[Path, Any]) -> str:
    """Return the page of all pipelines: what each does, its own parameters, and once those that several take alike."""
    listed = {file.stem: pipeline_rows(file, pipeline) for file, pipeline in sorted(pipelines.items())}
    counts = Counter(row for rows in listed.values() for row in rows)
    shared = list(dict.fromkeys(row for rows in listed.values() for row in rows if counts[row] >= SHARED_BY))
    head = ("parameter", "type", "default", "meaning")
    blocks = [
        f"# Pipelines and their parameters\n\n{NOTE}, from the compiled YAML. `mixtune run NAME key=value` takes these "
        "names; lists and objects are JSON. [settings.md](settings.md) has the keys of parameters whose names end in "
        f"`_options`.\n\nA parameter that {SHARED_BY} pipelines or more take alike stands in the "
        "[last table](#parameters-of-several-pipelines).\n"
    ]
    for file in sorted(pipelines):
        with open(file) as stream:
            spec = next(yaml.safe_load_all(stream))
        rows = listed[file.stem]
        blocks += [f"## {file.stem}\n\n{spec['pipelineInfo'].get('description', '')}\n"]
        if own := [row for row in rows if row not in shared]:
            blocks += [table(head, own)]
        blocks += [f"Also: {', '.join(row[0] for row in rows if row in shared)}.\n"]
    return "\n".join([*blocks, "## Parameters of several pipelines\n", table(head, shared)])


def pipeline_rows(file: Path, pipeline: Any) -> list[tuple[str, str, str, str]]:
    """Return a compiled pipeline's parameters in the order of its function: name, type, default, meaning."""
    with open(file) as stream:
        spec = next(yaml.safe_load_all(stream))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    named = [(name, parameters[name]) for name in inspect.signature(pipeline.pipeline_func).parameters]
    return [
        (f"`{name}`", KINDS[item["parameterType"]], value(item), cell(item.get("description", "")))
        for name, item in named
    ]


SHARED_BY = 3
"""Pipelines that take a parameter alike, from which on it is listed once."""
KINDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "whole number",
    "NUMBER_DOUBLE": "number",
    "BOOLEAN": "true or false",
    "LIST": "list",
    "STRUCT": "object",
}


def value(item: dict[str, Any]) -> str:
    """Return a pipeline parameter's default: empty where it has to be given."""
    if not item.get("isOptional"):
        return ""
    if item.get("defaultValue") is None:
        return "none"
    number = item["parameterType"] == "NUMBER_INTEGER"
    return f"`{json.dumps(int(item['defaultValue']) if number else item['defaultValue'])}`"


@dataclass(frozen=True)
class Fields:
    """A dataclass as a document shows it."""

    name: str
    text: str
    inherits: str
    """A sentence on the dataclasses whose fields it has, too; empty where there are none."""
    kind: str
    """Kind and version of the file that it is; empty where it is part of one."""
    rows: list[tuple[str, str, str, str]]
    """Name, type, default and meaning of each field."""


def formats_page() -> str:
    """Return the page of all files that cross a task's border: each dataclass with its fields."""
    classes = {path: read_dataclasses(path) for path in sorted((PACKAGE / "artifacts").glob("*.py"))}
    files = [
        (f"[`{item.name}`](#{item.name.lower()})", item.kind, item.text) for group in classes.values() for item in group
    ]
    blocks = [
        f"# Files between tasks\n\n{NOTE}, from the dataclasses of `mixtune/artifacts`. Each is a JSON file. "
        "A manifest's `data_uri` names the folder in which its bytes lie. Training files are in [data.md](data.md).\n",
        table(("file", "kind, version", "what it is"), [row for row in files if row[1]]),
    ]
    for path, group in classes.items():
        blocks += [f"## {path.stem}\n\n{first_line(path)}.\n"] if group else []
        for item in sorted(group, key=lambda item: not item.kind):
            rows = [(name, kind, meaning) for name, kind, _, meaning in item.rows]
            blocks += [f"### `{item.name}`\n\n{item.text}{item.inherits}\n", table(("field", "type", "meaning"), rows)]
    return "\n".join(blocks)


def settings_page() -> str:
    """Return the page of all settings: each dataclass with its fields, defaults and ranges."""
    blocks = [
        f"# Settings\n\n{NOTE}, from the dataclasses of `mixtune/settings`. Components and preflight construct them.\n"
    ]
    for path in sorted((PACKAGE / "settings").glob("*.py")):
        group = read_dataclasses(path)
        blocks += [f"## {path.stem}\n\n{first_line(path)}.\n"] if group else []
        for item in group:
            blocks += [f"### `{item.name}`\n\n{item.text}{item.inherits}\n"]
            blocks += [table(("field", "type", "default", "meaning"), item.rows)] if item.rows else []
    return "\n".join(blocks)


def read_dataclasses(path: Path) -> list[Fields]:
    """Return a module's public dataclasses, in their order."""
    classes = []
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any("dataclass" in ast.unparse(item) for item in node.decorator_list):
            continue
        constants, rows = {}, []
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name, given = item.target.id, ast.unparse(item.value) if item.value else ""
            if ast.unparse(item.annotation).startswith("ClassVar"):
                constants[name] = ast.literal_eval(item.value) if isinstance(item.value, ast.Constant) else given
                continue
            factory = re.fullmatch(r"field\(default_factory=(\w+)\)", given)
            given = {"dict": "{}", "list": "[]", "tuple": "()"}.get(factory[1], "") if factory else given
            meaning = ast.literal_eval(after.value) if is_text(after) else ""
            kind = f"`{ast.unparse(item.annotation)}`"
            rows.append((f"`{name}`", cell(kind), cell(f"`{given}`" if given else ""), cell(meaning)))
        kind = f"{constants['KIND']}, {constants['VERSION']}" if constants.get("KIND") else ""
        text = cell((ast.get_docstring(node) or "").split("\n\n")[0])
        bases = " and ".join(f"`{ast.unparse(base)}`" for base in node.bases)
        classes.append(Fields(node.name, text, f" It has the fields of {bases}, too." if bases else "", kind, rows))
    return classes


def is_text(node: ast.AST | None) -> TypeGuard[ast.Expr]:
    """Return whether a statement is a bare string: the docstring of the field before it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def models_page() -> str:
    """Return the page of models, its generated blocks written anew; the rest of it is written by hand."""
    page = (ROOT / "docs" / "models.md").read_text()
    for name, block in (("architectures", architectures()), ("chat templates", chat_templates())):
        page = with_block(page, name, block)
    return page


TEMPLATE = "the chat template "


def chat_templates() -> str:
    """Return the table of chat templates: what is learned of every kind of conversation, and why something is not."""
    families = json.loads((ROOT / "tests" / "chat" / "families.json").read_text())
    kinds = list(next(iter(families.values())))
    rows = []
    for name, outcomes in families.items():
        reasons = {reason: None for reason in outcomes.values() if reason not in ("learned", "split")}
        refused = [
            f"{', '.join(k for k in kinds if outcomes[k] == reason)}: {reason.removeprefix('the chat template ')}"
            for reason in reasons
        ]
        split = ", ".join(kind for kind in kinds if outcomes[kind] == "split")
        learned = sum(outcome in ("learned", "split") for outcome in outcomes.values())
        rows.append((f"`{name}`", f"{learned} of {len(kinds)}", split, "; ".join(refused)))
    head = ("template", "learned", "in several examples", "refused: reason")
    return f"\nKinds: {', '.join(kinds)}.\n\n" + table(head, rows) + "\n"


def with_block(page: str, name: str, content: str) -> str:
    """Return a page with one block written anew."""
    begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    return before + begin + content + end + rest.partition(end)[2]


def forms_tables() -> str:
    """Return the tables of rows: what each form of the tests is read as by the schemas, or why it is refused."""
    from mixtune.errors import DataError
    from mixtune.sanitize.reading import fields as names
    from mixtune.sanitize.reading import schemas
    from mixtune.sanitize.rules.record_texts import Refused

    forms = importlib.import_module("tests.sanitize.test_forms")
    read, refused = [], []
    for form, (row, _) in sorted({**forms.READ, **forms.REFUSED}.items()):
        try:
            record = schemas.find_schema(row, {}).record(row, "", 1, Counter())
            read.append((form, ", ".join(f"`{name}`" for name in row), " ".join(map(said, record["messages"]))))
        except (DataError, Refused) as error:
            refused.append((form, cell(str(error).partition("; give columns")[0])))
    plain = {
        name: [f"`{item}`" for item in getattr(names, name)] for name in ("SYSTEM", "BESIDE", "HISTORY", "REASONING")
    }
    columns = [
        ("a whole conversation", [f"`{name}`" for name in names.CONVERSATIONS]),
        ("question and answer", [f"`{question}` `{answer}`" for question, answer in names.PAIRS]),
        ("a class beside `text`", [f"`{name}`" for name in names.LABELS]),
        ("the system text", plain["SYSTEM"]),
        ("what the question goes on in", plain["BESIDE"]),
        ("turns before", plain["HISTORY"]),
        ("the answer's thought", plain["REASONING"]),
    ]
    return (
        "\n"
        + table(("form", "fields", "read as"), read)
        + "\nA turn in brackets is context alone. These are refused, row by row, and counted by reason:\n\n"
        + table(("form", "reason"), refused)
        + "\nNames are compared without case, spaces and humps (`systemPrompt`):\n\n"
        + table(("what", "columns"), [(what, ", ".join(items)) for what, items in columns])
        + "\n"
    )


def said(message: Message) -> str:
    """Return a message's role, with what it has beside a text."""
    parts = [name for key, name in (("reasoning", "thought"), ("tool_calls", "calls")) if message.get(key)]
    text = message["role"] + (f" ({', '.join(parts)})" if parts else "")
    return text if message.get("learn", True) else f"[{text}]"


def published_benchmarks() -> str:
    """Return the table of published benchmarks: what is asked of each, and what is right; or why it is refused."""
    folder = ROOT / "tests" / "evaluate"
    layouts = yaml.safe_load((folder / "published_layouts.yaml").read_text())
    outcomes = json.loads((folder / "published_layouts.json").read_text())
    scored, refused = [], []
    for layout in layouts:
        made, task = outcomes[layout["name"]], layout.get("lm_eval", "").removesuffix(".yaml")
        name = f"{layout['name']} (`{layout['source']}`)"
        options = ", ".join(f"{key}={json.dumps(value)}" for key, value in layout["entry"].items() if key != "form")
        form = f"`{layout['entry']['form']}`" + (f", `{options}`" if options else "")
        if "refused" in made:
            refused.append((name, form, cell(shortened(made["refused"]))))
            continue
        beside = f"`{task}`: {made['lm_eval']}" if task else ""
        score = f"{made['metric']}, {made['limit']:g}"
        scored.append((name, form, f"`{cell(shortened(made['asked']))}`", score, beside))
    head = ("benchmark", "form", "asked", "score, allowed loss", "beside lm-eval's task")
    return f"\n{table(head, scored)}\n{table(('benchmark', 'form', 'refused'), refused)}\n"


def shortened(text: str, length: int = 160) -> str:
    """Return a text of a length at most, its middle left out."""
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"


def architectures() -> str:
    """Return the tables of model types: those that train, and those that do not."""
    from mixtune.artifacts.model import read_architectures, tried_with

    table_rows = read_architectures()
    trained = {name: row for name, row in table_rows.items() if row.layout}
    rows = [
        (f"`{name}`", row.layout, on_gpu(row), exactness(row), kinds(row.reach), partly(row.partly))
        for name, row in trained.items()
    ]
    others = [(f"`{name}`", cell(row.refused)) for name, row in table_rows.items() if row.refused]
    return (
        f"\nOf {len(table_rows)} types of transformers {tried_with()}, {len(trained)} train.\n\n"
        + table(("type", "records", "on a GPU", "losses within", "an adapter on `all-linear` works on", "not by"), rows)
        + "\nThese do not:\n\n"
        + table(("type", "reason"), others)
        + "\n"
    )


def on_gpu(row: "Architecture") -> str:
    """Return how records lie on a GPU, and by which attention."""
    return f"{row.gpu_layout}, {row.gpu_attention.removeprefix('mixtune_')}" if row.gpu_layout else ""


def exactness(row: "Architecture") -> str:
    """Return by how much losses differ from a plain forward's, and where float32 is the reason, by how much itself."""
    return f"{row.gap:.0e}" + (f", float32 itself {row.rounding:.0e}" if row.rounding else "")


def kinds(reach: dict[str, float]) -> str:
    """Return the kinds of weights that an adapter works on, with the share where it is not all."""
    shares = sorted(reach.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(name if share > 0.95 else f"{name} ({share:.0%})" for name, share in shares if share)


def partly(reasons: dict[str, str]) -> str:
    """Return the methods by which a type does not train, with the reason."""
    return cell("; ".join(f"{method}: {reason}" for method, reason in reasons.items()))


def benchmarks_page() -> str:
    """Return the list of benchmarks, each with the page of its results."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        result = path.parent / "results" / f"{path.stem}.md"
        link = f"[{result.stem}](results/{result.name})" if result.exists() else ""
        rows.append((f"`{path.name}`", cell(first_line(path)), link))
    head = f"# Benchmarks\n\n{NOTE}. Each script says in its first lines how it is run.\n"
    return f"{head}\n{table(('script', 'what it measures', 'results'), rows)}"


def first_line(path: Path) -> str:
    """Return the first line of a Python file's docstring, without its full stop."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].rstrip(".")


def cell(text: str) -> str:
    """Return a text as one line that a table's cell can hold."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("  |", " |") for line in lines)


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
