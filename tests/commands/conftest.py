"""A cluster beside the Kubeflow Pipelines."""

from ..backend.kubernetes import cluster as cluster
