"""Adapters beyond plain LoRA, dropout, merging and interpolation: what is saved, and where it loads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixtune import storage
from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.train.batches import pack
from mixtune.train.distributed import ProcessGroup
from mixtune.train.modeling import trainable
from mixtune.train.modeling.adapters import check_adapter
from mixtune.train.modeling.dropout import Dropout
from mixtune.train.modeling.trainable import Trainable, load_trainable
from mixtune.train.postprocess import name_base, postprocess

from .conftest import settings
from .test_checkpoints import interrupted

Train = Callable[..., str]
IDS = torch.tensor([[5, 17, 200, 33, 8, 90]])


def saved(folder: Path, **options: object) -> tuple[Path, Trainable]:
    """A model that has moved from where it began, saved and finished as a training leaves it."""
    folder.mkdir(exist_ok=True)
    rank = {"lora_rank": 8} if options.get("method") != "sft" else {}
    config = settings(**{**rank, **options})
    model = load_trainable(BASE_MODEL, config)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters().values():
            value.add_(torch.randn(value.shape, generator=draws) * 0.02)
    model.save(folder)
    postprocess(folder, BASE_MODEL, config)
    model.causal.eval()
    return folder, model


def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(str(BASE_MODEL), dtype=torch.float32)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4", "use_rslora": True},
        {"init_lora_weights": "olora"},
        {"use_osf": True},
    ],
    ids=str,
)
def test_an_adapter_loads_on_the_untouched_base_and_says_what_the_trained_model_said(
    options: dict[str, object], tmp_path: Path
) -> None:
    folder, model = saved(tmp_path, lora_options=options)
    got = logits(PeftModel.from_pretrained(base(), str(folder)))
    assert torch.allclose(got, logits(model.causal), atol=1e-3)
    assert (got - logits(base())).abs().max() > 0.02
    modules = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules), "the same bytes in every process"


@pytest.mark.parametrize("options", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"use_osf": True}])
def test_an_adapter_begins_as_the_base_model_and_again_the_same(options: dict[str, object]) -> None:
    config = settings(lora_options=options, lora_rank=8)
    first, again = (load_trainable(BASE_MODEL, config) for _ in range(2))
    assert torch.allclose(logits(first.causal.eval()), logits(base()), atol=1e-3)
    other = again.parameters()
    assert first.parameters()
    assert all(torch.equal(value, other[name]) for name, value in first.parameters().items())


def test_a_base_is_decomposed_on_the_gpu_where_it_takes_seconds_not_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    class AddedError(Exception):
        pass

    def add(causal: torch.nn.Module, *_: object) -> None:
        assert {value.device.type for value in causal.parameters()} == {"meta"}
        raise AddedError

    monkeypatch.setattr(ProcessGroup, "device", torch.device("meta"))
    monkeypatch.setattr(trainable, "add_adapter", add)
    for options in ({"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"use_osf": True}):
        with pytest.raises(AddedError):
            load_trainable(BASE_MODEL, settings(lora_options=options), ProcessGroup())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nowhere"]}, "Target modules .'nowhere'. not found in the base model"),
        (
            {"target_modules": ["q_proj", "nowhere"]},
            "target_modules: nothing is named 'nowhere'; the adapter works on q_",
        ),
        ({"target_modules": ["q_proj"], "target_parameters": ["up"]}, "target_parameters: nothing is named 'up'"),
        ({"exclude_modules": ["nowhere"]}, "exclude_modules: nothing is named 'nowhere'"),
        ({"exclude_modules": "["}, r"lora_options: '\[' is no regular expression"),
        ({"rank_pattern": {"lm_head": 4}}, "rank_pattern: nothing is named 'lm_head'"),
        ({"target_modules": ["q_proj"], "alpha_pattern": {"k_proj": 4}}, "alpha_pattern: nothing is named 'k_proj'"),
        ({"use_osf": True}, "lora_rank is 129; q_proj has 128 directions, fewer must move"),
    ],
    ids=str,
)
def test_options_that_fit_nothing_are_refused_alike_with_the_weights_and_without(
    options: dict[str, object], message: str
) -> None:
    config = settings(lora_options=options, lora_rank=129)
    for make in (check_adapter, load_trainable):
        with pytest.raises(ConfigError, match=message):
            make(BASE_MODEL, config)


@pytest.mark.parametrize(
    "options", [{}, {"init_lora_weights": "pissa"}, {"rank_pattern": {"q_proj": 4}}, {"target_modules": ".*[qk]_proj"}]
)
def test_options_that_fit_pass_without_the_weights(options: dict[str, object]) -> None:
    check_adapter(BASE_MODEL, settings(lora_options=options))


def test_orthogonal_tuning_moves_as_many_directions_as_the_rank_says() -> None:
    config = settings(lora_options={"use_osf": True}, lora_rank=8)
    moving = [
        value for name, value in load_trainable(BASE_MODEL, config).parameters().items() if name.endswith("S_low")
    ]
    assert moving
    assert {len(value) for value in moving} == {8}


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_osf": True}], ids=str)
def test_a_merged_model_loads_alone_in_bf16_and_is_the_base_with_its_adapter_rounded_once(
    options: dict[str, object], tmp_path: Path
) -> None:
    folder, model = saved(tmp_path, lora_options={**options, "merge": True})
    merged = AutoModelForCausalLM.from_pretrained(str(folder / "merged"), dtype="auto")
    assert merged.dtype == torch.bfloat16
    assert merged.config.use_cache
    wanted = PeftModel.from_pretrained(base(), str(folder)).merge_and_unload().to(torch.bfloat16)
    theirs = dict(wanted.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in merged.named_parameters())
    assert (logits(merged.float()) - logits(model.causal)).abs().max() < 0.15
    assert AutoTokenizer.from_pretrained(str(folder / "merged")).chat_template
    assert not list(folder.rglob("*.bin"))


def test_an_adapter_that_is_interpolated_adds_that_share_of_what_it_learned(tmp_path: Path) -> None:
    models = []
    for share in (1.0, 0.25):
        folder, _ = saved(tmp_path / str(share), interpolate=share, lora_options={"init_lora_weights": "pissa"})
        models.append(dict(PeftModel.from_pretrained(base(), str(folder)).merge_and_unload().named_parameters()))
    check_line(*models)


def test_full_weights_that_are_interpolated_lie_on_the_line_to_the_base(tmp_path: Path) -> None:
    models = []
    for share in (1.0, 0.25):
        folder, _ = saved(tmp_path / str(share), method="sft", interpolate=share)
        models.append(dict(AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).named_parameters()))
    check_line(*models)


def check_line(tuned: dict[str, torch.Tensor], drawn: dict[str, torch.Tensor]) -> None:
    start = dict(base().named_parameters())
    assert max(float((value - start[name]).detach().abs().max()) for name, value in tuned.items()) > 1e-3
    for name, value in tuned.items():
        assert torch.allclose(drawn[name] - start[name], 0.25 * (value - start[name]), atol=1e-6)


def losses(records: list[TokenRecord], step: int, cut: list[list[int]], seed: int = 42) -> torch.Tensor:
    """Hidden states summed by record, of a model that drops half, for one way to cut the batch."""
    config = settings(lora_options={"lora_dropout": 0.5}, seed=seed)
    model = load_trainable(BASE_MODEL, config)
    torch.manual_seed(0)
    for name, value in model.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    assert model.dropout
    model.dropout.begin_step(step)
    out = torch.zeros(len(records))
    for micro in cut:
        packed = pack([records[index] for index in micro], micro)
        model.dropout.begin_micro_batch(micro, [len(records[index].input_ids) for index in micro])
        hidden = model.causal.get_decoder()(
            input_ids=packed.input_ids[None], position_ids=packed.position_ids[None], use_cache=False
        ).last_hidden_state[0]
        lengths = [len(records[index].input_ids) for index in micro]
        for index, part in zip(micro, hidden.split(lengths), strict=True):
            out[index] = part.detach().square().sum()
    return out


def test_dropout_depends_on_step_and_record_and_not_on_how_a_batch_is_cut(
    draw_records: Callable[[int, int], list[TokenRecord]],
) -> None:
    records = draw_records(4, 0)
    whole = losses(records, 3, [[0, 1, 2, 3]])
    assert torch.allclose(whole, losses(records, 3, [[2, 0], [1], [3]]), rtol=1e-4)
    assert not torch.allclose(whole, losses(records, 4, [[0, 1, 2, 3]]), rtol=1e-3)
    assert not torch.allclose(whole, losses(records, 3, [[0, 1, 2, 3]], seed=7), rtol=1e-3)


LAYER = torch.tensor(7, dtype=torch.int32)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    model = load_trainable(BASE_MODEL, settings(lora_options={"lora_dropout": 0.25}))
    assert model.dropout
    model.dropout.begin_micro_batch([0, 1], [300, 200])
    mask = model.dropout.mask(LAYER, torch.ones(1, 500, 100))
    assert mask.shape == (1, 500, 100)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ConfigError, match="leave experts and the head out"):
        model.dropout.mask(LAYER, torch.ones(1, 7, 100))
    model.dropout.begin_micro_batch([0, 1], [300, 200], in_rows=True)
    rows = model.dropout.mask(LAYER, torch.ones(2, 300, 100))
    assert torch.equal(torch.cat([rows[0], rows[1, :200]]), mask[0]), "a record drops the same in a row of its own"


def test_draws_of_tokens_features_layers_and_steps_have_nothing_to_do_with_one_another() -> None:
    dropout = Dropout(0.5, seed=1)
    masks = []
    for step in (0, 1):
        dropout.begin_step(step)
        dropout.begin_micro_batch([3, 5], [256, 256])
        masks += [dropout.mask(LAYER + layer, torch.ones(1, 512, 256))[0] - 1 for layer in (0, 1)]
    signs = masks[0]
    pairs = [signs[1:] * signs[:-1], signs[:, 1:] * signs[:, :-1], signs[:256] * signs[256:]]
    pairs += [signs * other for other in masks[1:]] + [signs.mean(0, keepdim=True) * 16, signs.mean(1) * 16]
    for pair in pairs:  # means of so many signs are within five of their standard deviations
        assert abs(float(pair.mean())) < 5 / pair.numel() ** 0.5
    assert float(signs.mean(0).std()) == pytest.approx(512**-0.5, rel=0.2)


@pytest.mark.slow
def test_a_training_with_dropout_goes_on_with_the_same_bits(train: Train, tmp_path: Path) -> None:
    options = {"lora_options": {"lora_dropout": 0.3, "merge": True}, "learning_rate": 1e-3, "interpolate": 0.5}
    whole = trained(train(tmp_path / "whole", **options))
    interrupted(train, tmp_path / "cut", 3, **options)
    again = trained(train(tmp_path / "cut", **options))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    without = trained(train(tmp_path / "without", **{**options, "lora_options": {"merge": True}}))
    assert not all(torch.equal(value, without[name]) for name, value in whole.items())


def trained(uri: str) -> dict[str, torch.Tensor]:
    folder = Path(storage.check_fingerprint(uri))
    assert (folder / "merged" / "model.safetensors").is_file()
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_options": {"lora_dropout": 1.0}}, "lora_dropout is 0 to below 1; got 1.0"),
        ({"lora_options": {"use_osf": True, "use_rslora": True}}, "beside use_osf there is target_modules alone"),
        ({"lora_options": {"init_lora_weights": "pissa", "use_dora": True}}, "pissa and olora go without use_dora"),
        ({"interpolate": 0.5, "lora_options": {"use_dora": True}}, "cannot be scaled"),
        ({"interpolate": 0.0}, "interpolate is above 0, at most 1; got 0.0"),
        ({"method": "sft", "lora_options": {"merge": True}}, "lora_options is for method lora, and method is sft"),
        ({"checkpoints": {"keep": 0}}, "checkpoints: keep is 1 or more; got 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_options": {"target_modules": ["nothing"]}}, "lora_options: Target modules .*nothing"),
        ({"lora_options": {"use_osf": True}, "lora_rank": 4096}, "lora_rank is 4096; .* has 128 directions"),
    ],
)
def test_what_the_model_cannot_take_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_trainable(BASE_MODEL, settings(**options))


def test_an_adapter_carries_its_bases_tokenizer_and_licence_but_not_its_card(tmp_path: Path) -> None:
    folder, base = tmp_path / "adapter", tmp_path / "base"
    folder.mkdir()
    shutil.copytree(BASE_MODEL, base)
    (base / "LICENSE").write_text("MIT License")
    (folder / "adapter_config.json").write_text("{}")
    name_base(folder, str(base), base)
    assert {"tokenizer.json", "chat_template.jinja", "LICENSE"} <= {path.name for path in folder.iterdir()}
    assert not {"README.md", "config.json"} & {path.name for path in folder.iterdir()}
