"""The stages that only a search for the mix has."""

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from mixtune.find_mix.component import conclude_mix, fit_mix, plan_proxies, plan_search, weigh_mix
from pipelines.flow import Inputs, Mix, Run, add, on_cluster, with_run_id


class SearchRun(Run):
    """A run with the stages of a search."""

    def plan_search(self, inputs: Inputs, find_options: dict) -> dsl.PipelineTask:
        """Read the options of a search."""
        return on_cluster(plan_search(find_options=find_options, evaluate_options=inputs.evaluate_options))

    def plan_proxies(self, inputs: Inputs, mix: Mix, find_options: dict) -> dsl.PipelineTask:
        """Plan the short trainings of a search, each with all that its tasks take from `fingerprint`."""
        return on_cluster(add(plan_proxies, self, inputs, mix, find_options=find_options))

    def fit_mix(
        self, comparisons: PipelineArtifactChannel, base: dsl.PipelineTask, mix: Mix, find_options: dict
    ) -> dsl.PipelineTask:
        """Fit what the short trainings lost and gained, and choose a share."""
        comparisons = dsl.Collected(comparisons)
        task = add(fit_mix, self, mix, comparisons=comparisons, base=base.outputs["samples"], find_options=find_options)
        return on_cluster(task, cached=False)

    def weigh_mix(self, decision: dsl.PipelineTask, search_uri: str) -> dsl.PipelineTask:
        """Hold a full training against its prediction and say what comes next."""
        task = add(weigh_mix, self, comparison=decision.outputs["comparison"], search_uri=search_uri)
        return on_cluster(task, cached=False)

    def conclude_mix(self, search_uri: str) -> dsl.PipelineTask:
        """Name the share to take."""
        task = add(conclude_mix, self, search_uri=search_uri)
        return with_run_id(on_cluster(task, cached=False))
