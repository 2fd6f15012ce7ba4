"""The rooms and who may import whom, read from the syntax trees; ARCHITECTURE.md shows the same table."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "components" / "mixtune"
SHARED = {"settings", "storage", "benchmark_files", "artifacts", "chat", "report"}
MAY_IMPORT: dict[str, set[str]] = {
    "settings": set(),
    "storage": set(),
    "benchmark_files": {"storage"},
    "artifacts": {"settings", "storage"},
    "chat": {"settings", "storage"},
    "report": {"settings", "storage", "artifacts"},
    "sanitize": SHARED,
    "open_pools": SHARED | {"sanitize"},
    "mix_shard": SHARED,
    "train": SHARED | {"preflight", "inference"},
    "inference": SHARED,
    "evaluate": SHARED | {"inference"},
    "compare": SHARED | {"evaluate", "inference"},
    "rehearse": SHARED | {"evaluate", "inference"},
    "choose": SHARED,
    "find_mix": SHARED | {"choose"},
    "registry": SHARED,
    "serve": SHARED,
    "model_choice": SHARED | {"compare", "evaluate", "inference", "serve"},
    "tuning_import": SHARED | {"sanitize"},
    "preflight": SHARED | {"evaluate", "inference"},
    "outcome": SHARED,
    "demo": SHARED,
    "compiled": set(),
}
"""Rooms of the package, each with the other rooms that it may import; modules of the root belong to all."""
FRONT = {"__main__", "cli", "commands"}
"""What a user types: these may import every room."""
HEAVY = {"torch", "transformers", "peft"}
MAY_BE_HEAVY = {"train", "evaluate", "inference", "rehearse", "demo"}
MAX_MODULES = 16
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
COMPONENTS = sorted(path.parent.name for path in PACKAGE.glob("*/component.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_its_room_may(module: Path) -> None:
    names = imported(ast.parse((PACKAGE / module).read_text()))
    tops = {name.split(".")[0] for name in names}
    room = module.parts[0] if len(module.parts) > 1 else module.stem
    if module.name != "component.py" and room not in FRONT:
        assert "kfp" not in tops, "kfp is imported in component.py, pipelines/, cli.py and commands/ only"
    if HEAVY & tops:
        light = room == "chat" and not {"torch", "peft"} & tops
        assert room in MAY_BE_HEAVY or light or module == Path("interpolation.py")
    ours = {name.removeprefix("mixtune.").split(".")[0] for name in names if name.startswith("mixtune.")}
    if room in FRONT:
        return
    others = ours & {*MAY_IMPORT, *FRONT} - {room}
    allowed = MAY_IMPORT[room] if len(module.parts) > 1 else SHARED
    assert others <= allowed, f"{room} may not import {sorted(others - allowed)}"
    assert not any(name.startswith(f"mixtune.{room}.component") for name in names), "logic never imports a shell"


def test_every_folder_of_the_package_is_a_room_with_its_rule() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")}
    assert folders <= {*MAY_IMPORT, *FRONT}


def test_no_folder_is_full_and_no_module_is_named_twice() -> None:
    by_folder: dict[Path, list[str]] = {}
    for module in MODULES:
        if module.stem != "__init__":
            by_folder.setdefault(module.parent, []).append(module.stem)
    assert {folder: len(stems) for folder, stems in by_folder.items() if len(stems) > MAX_MODULES} == {}
    stems = [stem for folder in by_folder.values() for stem in folder if stem not in ("component", "run")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    names = {
        module: ".".join(("mixtune", *module.with_suffix("").parts)).removesuffix(".__init__") for module in MODULES
    }
    known = set(names.values())
    arrows = {
        name: {other for other in imported(ast.parse((PACKAGE / module).read_text())) & known if other != name}
        for module, name in names.items()
    }
    # A package's own name is imported with every `from package import module`: only an `__init__` with code counts.
    packages = {name for module, name in names.items() if module.stem == "__init__"}
    open_paths: list[str] = []
    done: set[str] = set()

    def walk(name: str) -> None:
        assert name not in open_paths, " -> ".join([*open_paths[open_paths.index(name) :], name])
        if name in done:
            return
        open_paths.append(name)
        for other in arrows[name] - packages:
            walk(other)
        open_paths.pop()
        done.add(name)

    for name in sorted(known - packages):
        walk(name)


@pytest.mark.parametrize("part", COMPONENTS)
def test_a_components_init_is_empty(part: str) -> None:
    assert (PACKAGE / part / "__init__.py").read_text() == ""


@pytest.mark.parametrize("part", COMPONENTS)
def test_a_shell_is_thin_and_its_logic_is_imported_inside(part: str) -> None:
    tree = ast.parse((PACKAGE / part / "component.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mixtune"):
            assert node.module == "mixtune"
        if isinstance(node, ast.FunctionDef):
            assert node.decorator_list, f"{node.name}: shells only"
            body = [item for item in node.body if not isinstance(item, ast.ImportFrom | ast.Expr)]
            assert len(body) <= 10
            assert not any(isinstance(item, ast.If | ast.Try | ast.While) for item in ast.walk(node))
            assert all(
                isinstance(default, ast.Constant | ast.List | ast.Dict | ast.UnaryOp) for default in node.args.defaults
            )


def test_no_module_runs_data_as_code() -> None:
    for module in MODULES:
        tree = ast.parse((PACKAGE / module).read_text())
        tops = {name.split(".")[0] for name in imported(tree)}
        assert not tops & {"pickle", "dill", "shelve", "marshal"}, module
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "os.system", "torch.load"), (module, node.lineno)
                assert not any(
                    word.arg in ("shell", "trust_remote_code") and getattr(word.value, "value", None) is True
                    for word in node.keywords
                ), (module, node.lineno)
