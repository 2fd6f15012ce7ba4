"""Plain dictionaries become dataclasses; what is wrong is named with the way out."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest

from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is a share, 0 to 1; got {self.share}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    mode: Literal["keep", "drop"] = "keep"
    count: int = 0
    fraction: float = 0.0
    strict: bool = False
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None
    pair: tuple[int, str] | None = None
    tags: frozenset[str] = frozenset()
    limit: int | str = 0
    anything: Any = None


def test_nested_values_become_what_the_annotations_say() -> None:
    outer = from_dict(
        Outer,
        {
            "count": 3.0, "fraction": 1, "inner": {"name": "a"}, "many": [{"name": "b", "share": 1}], "tags": ["t"],
            "named": {"c": {"name": "c"}}, "pair": [1, "x"], "limit": "all", "anything": {"x": [1]},
        },
        "options",
    )  # fmt: skip
    assert outer == Outer(
        count=3,
        fraction=1.0,
        inner=Inner(name="a"),
        many=(Inner(name="b", share=1.0),),
        tags=frozenset({"t"}),
        named={"c": Inner(name="c")},
        pair=(1, "x"),
        limit="all",
        anything={"x": [1]},
    )
    assert isinstance(outer.count, int)
    assert from_dict(Outer, asdict(outer), "options") == outer


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"^options is a dictionary; got \[\]"),
        ({"cuont": 1}, r"^options: unknown key 'cuont'; did you mean 'count'\?"),
        ({"zzz": 1}, r"^options: unknown key 'zzz'; there are mode, count, "),
        ({"inner": {}}, r"^options: inner: 'name' is missing"),
        ({"mode": "all"}, r"^options: mode is one of keep, drop; got 'all'"),
        ({"count": 1.5}, r"^options: count is a whole number; got 1\.5"),
        ({"count": True}, r"^options: count is a whole number; got True"),
        ({"fraction": "1"}, r"^options: fraction is a number; got '1'"),
        ({"strict": "yes"}, r"^options: strict is true or false; got 'yes'"),
        ({"many": "ab"}, r"^options: many is a list; got 'ab'"),
        ({"many": [{"name": 1}]}, r"^options: many, entry 1: name is a text; got 1"),
        ({"named": []}, r"^options: named is a dictionary"),
        ({"pair": [1]}, r"^options: pair is a list of 2"),
        ({"limit": []}, r"^options: limit is a text; got \[\]"),
        ({"inner": {"name": "a", "share": 2}}, r"^options: inner: share is a share, 0 to 1; got 2"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Outer, value, "options")
