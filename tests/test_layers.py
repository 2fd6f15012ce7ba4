"""The import direction of the design, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "components" / "mixtune"
COMPONENTS = ("sanitize", "mix_shard", "train", "evaluate", "choose", "preflight", "outcome")
HEAVY = {"torch", "transformers", "peft"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_its_layer_may(module: Path) -> None:
    names = imported(ast.parse((PACKAGE / module).read_text()))
    tops = {name.split(".")[0] for name in names}
    part = module.parts[0] if len(module.parts) > 1 else ""
    if module.name != "component.py" and module != Path("cli.py") and part != "commands":
        assert not tops & {"kfp"}, "kfp is imported in component.py, pipelines/, cli.py and commands/ only"
    if HEAVY & tops:
        light = part == "mix_shard" and not {"torch", "peft"} & tops
        assert part in ("train", "evaluate", "demo") or light or module == Path("dial.py")
    ours = {name.removeprefix("mixtune.") for name in names if name.startswith("mixtune.")}
    if part in COMPONENTS:
        others = {name for name in ours if name.split(".")[0] in set(COMPONENTS) - {part}}
        assert not others, f"{part} imports another component: {sorted(others)}"
        assert not any(name.startswith(f"{part}.component") for name in ours), "logic never imports a shell"
    elif part == "" and module != Path("cli.py"):
        assert not {name.split(".")[0] for name in ours} & set(COMPONENTS), "shared modules know no component"


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
