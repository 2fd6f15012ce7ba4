"""Run a Python program as if this machine had GPUs, one for each process: their rules, over the CPU's arithmetic.

    python benchmarks/gpu_on_cpu/run.py PROGRAM [ARGUMENT ...]        (or -m MODULE, as for python itself)

Tensors on `cuda:0` have values, and lie apart from those on the CPU: what CUDA refuses to mix is refused, autocast is
CUDA's, the branches for GPUs are taken, and attention over packed records is FlashAttention's, by plain arithmetic and
with its limits. All processes that the program starts have one, too. Collectives go by gloo. What does not show:
kernels and their rounding, speed, memory, and what is done out of order. It needs a C++ compiler.
"""

import os
import sys
from pathlib import Path

from gpu_process import build_guard


def environment() -> dict[str, str]:
    """Return the environment of a process that has a GPU on the CPU.

    Raises:
        FileNotFoundError: There is no C++ compiler.
        subprocess.CalledProcessError: The installed PyTorch has another interface.
    """
    folder = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "GPU_ON_CPU": str(build_guard())}


if __name__ == "__main__":
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment())
