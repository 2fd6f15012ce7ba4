"""The stages that only a search for the mix has."""

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from mixtune.find_mix.component import conclude_mix, fit_mix, plan_proxies, plan_search, weigh_mix
from pipelines.flow import Inputs, Mix, Run, on_cluster, with_run_id


class SearchRun(Run):
    """A run with the stages of a search."""

    def plan_search(self, inputs: Inputs, find_options: dict) -> dsl.PipelineTask:
        """Read the options of a search."""
        return on_cluster(plan_search(find_options=find_options, evaluate_options=inputs.evaluate_options))

    def plan_proxies(self, inputs: Inputs, mix: Mix, find_options: dict) -> dsl.PipelineTask:
        """Plan the short trainings of a search, each with all that its tasks take from `fingerprint`."""
        task = plan_proxies(
            customer_epochs=mix.customer_epochs,
            base_model=inputs.base_model,
            weights=inputs.weights,
            seed=self.seed,
            find_options=find_options,
            evaluate_options=inputs.evaluate_options,
            benchmarks=inputs.benchmarks,
            limits=inputs.limits,
            mix_options=inputs.mix_options,
        )
        return on_cluster(task)

    def fit_mix(
        self, comparisons: PipelineArtifactChannel, base: dsl.PipelineTask, mix: Mix, find_options: dict
    ) -> dsl.PipelineTask:
        """Fit what the short trainings lost and gained, and choose a share."""
        task = fit_mix(
            comparisons=dsl.Collected(comparisons),
            base=base.outputs["samples"],
            customer_epochs=mix.customer_epochs,
            find_options=find_options,
            seed=self.seed,
            storage=self.storage,
        )
        return on_cluster(task, cached=False)

    def weigh_mix(self, decision: dsl.PipelineTask, search_uri: str) -> dsl.PipelineTask:
        """Hold a full training against its prediction and say what comes next."""
        task = weigh_mix(
            comparison=decision.outputs["comparison"], search_uri=search_uri, seed=self.seed, storage=self.storage
        )
        return on_cluster(task, cached=False)

    def conclude_mix(self, search_uri: str) -> dsl.PipelineTask:
        """Name the share to take."""
        task = conclude_mix(search_uri=search_uri, tracking=self.tracking, storage=self.storage)
        return with_run_id(on_cluster(task, cached=False))
