"""Give a Python process a GPU on the CPU as it starts; `run.py` puts this file's folder on the path of what it runs."""

import os

if os.environ.get("GPU_ON_CPU") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
    from gpu_process import start

    start(os.environ["GPU_ON_CPU"])
