"""What the parameters of the pipelines mean: said once, and shown by each of their pages."""

import inspect
from collections.abc import Callable

TEXTS = {
    "customer_uri": "The customer's records: a file or folder, local or s3://; any format that sanitize reads.",
    "general_pools": "List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.",
    "base_model": "A folder, an s3:// prefix, or org/name@revision.",
    "customer_columns": "Column mapping of the customer's files; empty: detected.",
    "test_uri": "The customer's held-out set; empty: a tenth of the customer's records is split off.",
    "benchmarks": '{"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: general axes beside the general hold-out\'s NLL.',
    "customer_data_percent": "Customer share of every global batch, 0 to 100.",
    "customer_epochs": "Passes over the customer pool; max_steps, where it is not 0, decides instead.",
    "max_steps": "Optimizer steps; 0: as many as customer_epochs takes.",
    "method": '"lora" or "sft" (full).',
    "learning_rate": "Peak learning rate.",
    "seed": "Of splits, mix, initialisation.",
    "sanitize_options": 'Further settings of sanitize, such as {"dedup": {...}, "splits": {"holdout_records": 200}}.',
    "mix_options": 'Further settings of mix_shard, such as {"global_batch_size": 32, "max_length": 8192}.',
    "train_options": 'Further settings of train, such as {"lora_rank": 16, "lora_alpha": 32, "memory": {...}}.',
    "evaluate_options": 'Further settings of evaluate, such as {"limit": 500, "engine": "vllm"}.',
    "num_nodes": "Nodes of a training job; empty: train in the task's own process, without a cluster.",
    "gpus_per_node": "GPUs per node of a training job and of an evaluation; empty: none.",
    "data_cpu": "CPUs that sanitize and mix_shard reserve; they use more where the node has more.",
    "data_memory": "Memory that they reserve; sanitize needs about 1 GB for a million records.",
    "tracking": 'MLflow: {"uri", "experiment", "project", "hyperpod", "tags"}.',
    "storage": '{"kms_key_id", "endpoint_url", "region"} for s3:// data.',
    "customer_data_percents": "Customer shares to try, each above 0 and at most 100.",
    "dial": "Strengths between base (0) and trained model (1) at which every point is evaluated too; empty: none.",
    "customer_target": "Score to reach on the customer's axis, in its own metric; 0: a certain gain is enough.",
    "sft_max_steps": "The budget: optimizer steps that full fine-tuning may take; 0: it is never tried.",
    "model_uri": "The tuned model or adapter: a folder or an s3:// prefix.",
}


def documented(**own: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add to a pipeline's docstring what its parameters mean: what is said here, else in `TEXTS`."""

    def add(pipeline: Callable[..., object]) -> Callable[..., object]:
        texts = {**TEXTS, **own}
        lines = [f"    {name}: {texts[name]}" for name in inspect.signature(pipeline).parameters]
        pipeline.__doc__ = "\n".join([inspect.cleandoc(pipeline.__doc__ or ""), "", "Args:", *lines])
        return pipeline

    return add
