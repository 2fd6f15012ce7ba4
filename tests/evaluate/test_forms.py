"""Benchmark forms: one object in one file each, found by the room itself."""

import ast
import subprocess
import sys
from pathlib import Path

import mixtune
from mixtune.evaluate.registry import BENCHMARK_FORMS, FORMS

PACKAGE = Path(mixtune.__file__).parent


def test_every_form_of_the_folder_is_found() -> None:
    asked = {"long_context", "math", "refusals", "thinking", "tool_calls"}
    benchmarks = {"gsm8k", "ifeval", "lm_eval", "mmlu", "multiple_choice", "short_answers"} | asked
    assert set(FORMS) == {"classification", "generation", "multilabel", "nll"} | benchmarks
    assert set(BENCHMARK_FORMS) == benchmarks


def test_no_module_but_a_forms_own_asks_which_form_an_axis_has() -> None:
    for path in [*PACKAGE.glob("evaluate/**/*.py"), *PACKAGE.glob("compare/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                texts = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                assert not texts & set(FORMS), f"{path}:{node.lineno}"


def test_what_compare_imports_of_the_forms_brings_no_model_library() -> None:
    code = (
        "import sys, mixtune.compare.run, mixtune.evaluate.registry; "
        "print([name for name in ('torch', 'transformers', 'peft', 'lm_eval', 'nltk', 'sklearn', 'vllm') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
