"""The checks of a run once its data is mixed, before a GPU is asked for: pools, lengths, steps, people, memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mixtune import storage
from mixtune.artifacts.pools import RowCounts
from mixtune.artifacts.shards import MixReceipt, PoolReceipt, ShardsManifest
from mixtune.preflight.checks import FEW_STEPS, IMAGE_DIGESTS, check_memory, checklist
from mixtune.preflight.findings import Findings, Row, conclude, look
from mixtune.preflight.model_checks import check_lengths
from mixtune.preflight.run_settings import RunSettings
from mixtune.settings.sanitize import SanitizeSettings, advise_region

MANY_EPOCHS = 5.0
"""Passes over a pool above which its records are more likely learned by heart than learned from."""
MUCH_LOST = 0.01
"""Share of a pool's records, 0 to 1, cut or dropped, above which preflight warns."""
STORED = ("report", "keep")
"""Policies of sanitize that leave personal data as it is."""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What a mix came to, as the manifest of its shards tells."""

    manifest: ShardsManifest

    @property
    def receipt(self) -> MixReceipt:
        """Planned and realized shares."""
        return self.manifest.receipt

    @property
    def sanitized(self) -> dict[str, tuple[RowCounts, SanitizeSettings]]:
        """By pool: its counts, and the rules that it was sanitized by."""
        parts = self.manifest.inputs.values()
        return {name: (counts, part.rules) for part in parts for name, counts in part.counts.items()}

    @property
    def data(self) -> dict[str, str]:
        """Digest of every source by its pool and split."""
        sources = [source for part in self.manifest.inputs.values() for source in part.inputs]
        return {f"{item.name}, {item.split}": storage.split_fingerprint(item.uri)[1] for item in sources}

    def run_settings(self, base_model: str, method: str, **further: Any) -> RunSettings:
        """Return the run's settings as far as the mix knows them; its longest record stands for `max_length`."""
        receipt = self.receipt
        weights = {pool.name: round(100 * pool.planned_share, 4) for pool in receipt.pools}
        longest = max(2, self.manifest.max_record_tokens)
        return RunSettings(
            base_model=base_model,
            general_pools=list(weights)[1:],
            weights=weights,
            customer_data_percents=[100 * receipt.mix_ratio],
            max_steps=receipt.num_steps,
            max_batch_tokens=receipt.max_batch_tokens,
            mix_options={"global_batch_size": receipt.global_batch_size, "max_length": longest},
            method=method,
            seed=receipt.seed,
            **further,
        )


def run_mixed_preflight(
    mixed: Mixed,
    settings: RunSettings,
    report_path: str,
    further: Mapping[str, Callable[[], Findings]] = MappingProxyType({}),
) -> str:
    """Look at the mixed data and make `further` checks, print and write them; `pass`, or `warn` where one warns.

    Raises:
        ConfigError: At least one check failed; all of those are named.
    """
    checks = [look(f"pool {pool.name}", _check_pool, pool, mixed) for pool in mixed.receipt.pools]
    checks += [
        look("steps", _check_steps, mixed),
        look("personal data", _check_personal, mixed),
        look("consent", _check_consent, mixed),
        look("lengths", check_lengths, settings),
        look("memory", check_memory, settings),
        *(look(name, check) for name, check in further.items()),
    ]
    return conclude(checks, "Preflight of the mixed data", _checklist(mixed, settings), report_path)


def _check_pool(pool: PoolReceipt, mixed: Mixed) -> Findings:
    lost = pool.num_dropped + pool.num_truncated
    yield (
        "pass",
        f"{pool.planned_share:.2%} of the mix: {pool.pool_records:,} records, {pool.num_records:,} drawn, "
        f"{pool.epochs:.2f} epochs; tokens {_histogram(pool.lengths)}; "
        f"{pool.num_truncated:,} truncated, {pool.num_dropped:,} dropped",
    )
    if pool.planned_share and not pool.num_records:
        yield "warn", "not one of its records is drawn in so few steps; more steps, or a larger weight"
    if pool.epochs > MANY_EPOCHS:
        passes = f"{pool.epochs:.1f} passes over its {pool.pool_records:,} records"
        yield "warn", f"{passes}; more data, a smaller weight, or fewer epochs"
    if lost > MUCH_LOST * max(1, pool.num_read):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.dropped.items())
        reasons = f"{pool.num_truncated:,} truncated{', ' if reasons else ''}{reasons}"
        text = f"{lost / pool.num_read:.1%} of its {pool.num_read:,} records are cut or dropped when tokenized"
        yield "warn", f"{text} ({reasons}); a larger max_length keeps them"
    counts, _ = mixed.sanitized.get(pool.name, (RowCounts(), None))
    if counts.kept < counts.read / 2:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.dropped.items())
        yield ("warn", f"sanitize kept {counts.kept:,} of {counts.read:,} records ({reasons}); see its quarantine file")


def _check_steps(mixed: Mixed) -> Findings:
    receipt = mixed.receipt
    steps = receipt.num_steps
    tokens = f"{receipt.num_tokens:,} tokens, {receipt.num_loss_tokens:,} of them to learn"
    yield "pass", f"{steps:,} of {receipt.global_batch_size} records, {tokens}"
    if steps < FEW_STEPS:
        yield "warn", f"{steps} steps hardly move a model; more customer_epochs, or a smaller global_batch_size"


def _check_personal(mixed: Mixed) -> Findings:
    """The reports on personal data: of every pool, and what was done about what was found."""
    pools = mixed.sanitized
    if missing := [name for name in mixed.manifest.pools if name not in pools]:
        yield "fail", f"no report on personal data of {', '.join(missing)}; make the pools by sanitize"
        return
    findings = {name: sum(counts.personal_data.values()) for name, (counts, _) in pools.items()}
    listed = ", ".join(f"{name} {count:,}" for name, count in findings.items() if count) or "none"
    yield "pass", f"reports of {len(pools)} pools; findings: {listed}"
    for name, (counts, rules) in pools.items():
        policies = rules.personal_data
        if advice := advise_region(counts.personal_data, rules.text.phone_region):
            yield "warn", f"{name}: {advice}"
        stored = {
            kind: count
            for kind, count in counts.personal_data.items()
            if policies.get(kind, policies.get("default")) in STORED
        }
        if stored:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in stored.items())
            yield "warn", f"{name}: {kinds} left as they are; let sanitize's personal_data be redact or drop"


def _check_consent(mixed: Mixed) -> Findings:
    """Whether the customer's records say that they may be used; a general pool has its licence instead."""
    customer = mixed.sanitized.get(mixed.manifest.pools[0])
    if customer is None:
        yield "fail", "no report on consent; make the customer's pool by sanitize"
        return
    counts, rules = customer[0].consent, customer[1]
    yield "pass", ", ".join(f"{count:,} {answer}" for answer, count in counts.items()) or "no record says a word on it"
    if not counts and not rules.consent.required:
        yield "warn", "no record says whether it may be used; map a consent column, or keep the agreement elsewhere"


def _histogram(lengths: dict[str, int]) -> str:
    edges = sorted(lengths, key=lambda edge: int(edge.removeprefix("< ")))
    return ", ".join(f"{edge}: {lengths[edge]:,}" for edge in edges) or "not counted"


def _checklist(mixed: Mixed, settings: RunSettings) -> list[Row]:
    reports = mixed.sanitized
    there = bool(reports) and all(name in reports for name in mixed.manifest.pools)
    rows = [(f"data: {name}", digest or "not recorded", bool(digest)) for name, digest in mixed.data.items()]
    people = ("personal data and consent", "reported by pool" if there else "not reported", there)
    of_the_run = [row for row in checklist(settings) if row[0] != IMAGE_DIGESTS]  # `preflight` lists them
    return [*of_the_run, ("dataset version", mixed.manifest.digest, True), *rows, people]
