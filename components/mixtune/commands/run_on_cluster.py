"""A run as the cluster itself knows it: its workflow, its pods and their logs, where a kubeconfig leads there."""

from mixtune.commands.task_states import Node, nodes_of_pods, nodes_of_workflow
from mixtune.errors import ClusterError
from mixtune.kubernetes_api import KubernetesApi, Object

RUN_LABEL = "pipeline/runid"
NODE_ID = "workflows.argoproj.io/node-id"


class RunOnCluster:
    """A run's objects in a namespace; empty answers where there is no cluster, no right, or no such run there."""

    def __init__(self, run_id: str, namespace: str) -> None:
        self.run_id, self.namespace = run_id, namespace
        self.trouble = ""
        """Why the cluster gave no answer."""
        self._api: KubernetesApi | None = None
        try:
            self._api = KubernetesApi(timeout_seconds=(3, 20))
        except ClusterError as error:
            self.trouble = str(error)

    def nodes(self) -> list[Node]:
        """Return the nodes of the run's workflow; where it may not be read, those that its pods tell."""
        workflow = self.workflow()
        return (nodes_of_workflow(workflow) if workflow else []) or nodes_of_pods(self.pods())

    def workflow(self) -> Object | None:
        """Return the run's Argo workflow; None where it is not to be had."""
        workflows = self._list("workflows", group="argoproj.io", version="v1alpha1")
        return workflows[0] if workflows else None

    def pods(self) -> list[Object]:
        """Return the pods of the run's steps and drivers."""
        return self._list("pods")

    def log(self, node_id: str) -> str:
        """Return the log of a step's pod by its node id; empty where the pod is gone or may not be read."""
        for pod in self.pods():
            metadata = pod["metadata"]
            if self._api and node_id in (metadata["name"], metadata.get("annotations", {}).get(NODE_ID)):
                path = self._api.path("pods", metadata["name"], namespace=self.namespace)
                try:
                    return self._api.text(f"{path}/log", container="main")
                except ClusterError as error:
                    self.trouble = str(error)
        return ""

    def _list(self, plural: str, group: str = "", version: str = "v1") -> list[Object]:
        if self._api is None:
            return []
        path = self._api.path(plural, group=group, version=version, namespace=self.namespace)
        try:
            return self._api.list(path, labelSelector=f"{RUN_LABEL}={self.run_id}")
        except ClusterError as error:
            self.trouble = str(error)
            return []
