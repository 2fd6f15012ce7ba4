"""The stages that only a search for the mix has."""

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from mixtune.find_mix.component import conclude_mix, fit_mix, plan_proxies, plan_search, weigh_mix
from pipelines.flow import Inputs, Mix, Run, on_cluster, with_run_id


class SearchRun(Run):
    """A run with the stages of a search."""

    def plan_search(self, inputs: Inputs, find_options: dict) -> dsl.PipelineTask:
        """Read the options of a search."""
        return on_cluster(self.task(plan_search, inputs, find_options=find_options))

    def plan_proxies(self, inputs: Inputs, mix: Mix, find_options: dict) -> dsl.PipelineTask:
        """Plan the short trainings of a search, each with all that its tasks take from `fingerprint`."""
        return on_cluster(self.task(plan_proxies, inputs, mix, find_options=find_options))

    def fit_mix(
        self, comparisons: PipelineArtifactChannel, base: dsl.PipelineTask, mix: Mix, find_options: dict
    ) -> dsl.PipelineTask:
        """Fit what the short trainings lost and gained, and choose a share."""
        measured = {"comparisons": dsl.Collected(comparisons), "base": base.outputs["samples"]}
        return on_cluster(self.task(fit_mix, mix, find_options=find_options, **measured), cached=False)

    def weigh_mix(self, decision: dsl.PipelineTask, search_uri: str) -> dsl.PipelineTask:
        """Hold a full training against its prediction and say what comes next."""
        task = self.task(weigh_mix, comparison=decision.outputs["comparison"], search_uri=search_uri)
        return on_cluster(task, cached=False)

    def conclude_mix(self, search_uri: str) -> dsl.PipelineTask:
        """Name the share to take."""
        return with_run_id(on_cluster(self.task(conclude_mix, search_uri=search_uri), cached=False))
