"""The acceptance of a GPU: 28 checks in three parts of under ten minutes each, as JSON and as a table

    python benchmarks/gpu.py --part numerics --out results      (or lora, or sft)

It needs one H100 or larger, and torch 2.12, transformers 5.23 and peft; liger-kernel and flash-attn where there are. It
ends with 1 if a check fails. With --tiny it runs on a CPU, in a minute: every line of it, at sizes at which nothing is fast,
and speeds and memory are recorded, not judged. What one GPU cannot show (NCCL and EFA between nodes) is in docs/first-day.md.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gpu_checks import lora, numerics, sft  # noqa: F401
from benchmarks.gpu_checks.bench import CHECKS, Bench, Outcome, as_json, as_row, run_check

PARTS = ("numerics", "lora", "sft")


@dataclass(frozen=True)
class Machine:
    """What the figures are of."""

    device: str
    torch: str
    cuda: str
    transformers: str
    peft: str

    @classmethod
    def here(cls) -> "Machine":
        """Return this machine."""
        import peft
        import transformers

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
        return cls(name, torch.__version__, str(torch.version.cuda), transformers.__version__, peft.__version__)

    def line(self) -> str:
        """In words."""
        return (
            f"{self.device}; torch {self.torch}, CUDA {self.cuda}, transformers {self.transformers}, peft {self.peft}"
        )


def run(numbers: list[int], *, tiny: bool) -> list[Outcome]:
    """Make checks, one after another, and print each as it ends."""
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in numbers:
            bench = Bench(device=device, tiny=tiny, scratch=Path(scratch) / str(number))
            bench.scratch.mkdir()
            outcomes.append(run_check(number, bench))
            print(as_row(outcomes[-1]), flush=True)
    return outcomes


def write(outcomes: list[Outcome], name: str, out: Path) -> None:
    """Write JSON and table."""
    out.mkdir(parents=True, exist_ok=True)
    machine = Machine.here()
    (out / f"{name}.json").write_text(
        json.dumps({"machine": vars(machine), "checks": [as_json(item) for item in outcomes]}, indent=1) + "\n"
    )
    head = ["| # | check | status | figures | s |", "|--:|---|---|---|--:|"]
    text = "\n".join([f"# {name}", "", machine.line(), "", *head, *map(as_row, outcomes)])
    (out / f"{name}.md").write_text(text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="else all three")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of checks")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        print("no GPU here; --tiny runs every check on a CPU and judges no speed", file=sys.stderr)
        return 2
    numbers = [
        number
        for number, (part, _, _) in sorted(CHECKS.items())
        if options.part in (None, part) and (not options.only or number in options.only)
    ]
    outcomes = run(numbers, tiny=options.tiny)
    write(outcomes, f"gpu-{options.part or 'all'}", options.out)
    failed = [item for item in outcomes if item.status == "FAIL"]
    for item in failed:
        print(f"{item.number} {item.title}: {item.trouble}", file=sys.stderr)
    print(f"{len(outcomes)} checks, {len(failed)} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
