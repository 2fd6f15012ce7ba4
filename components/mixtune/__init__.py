"""Fine-tune any causal language model on your own records, and prove that it forgot nothing."""

__version__ = "0.1.0"
