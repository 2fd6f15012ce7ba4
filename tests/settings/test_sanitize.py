"""The settings of sanitize, as a component and a pipeline name them."""

from typing import Any

import pytest

from mixtune.errors import ConfigError
from mixtune.settings.sanitize import SanitizeSettings, read_sanitize_settings


def test_options_of_a_pipeline_are_merged_key_by_key_and_a_parameter_wins() -> None:
    options = {"splits": {"test_ratio": 0.3, "validation_ratio": 0.1}, "dedup": {"conflicts": "drop"}, "seed": 7}
    settings = read_sanitize_settings({"splits": {"test_ratio": 0}, "text": {}}, options)
    assert (settings.splits.test_ratio, settings.splits.validation_ratio) == (0, 0.1)
    assert (settings.dedup.conflicts, settings.seed) == ("drop", 7)
    assert read_sanitize_settings({}) == read_sanitize_settings({}, {}) == SanitizeSettings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dedupe": {}}, r"^sanitize: unknown key 'dedupe'; did you mean 'dedup'\?"),
        ({"max_bad_ratio": 0.5}, r"^sanitize: unknown key 'max_bad_ratio'; write 'text\.max_bad_ratio'"),
        ({"dedup": {"near_duplicate": 0}}, "dedup: unknown key 'near_duplicate'; did you mean 'near_duplicates'"),
        ({"dedup": {"near_duplicates": 1.1}}, "near_duplicates is a similarity, 0 to 1; got 1.1"),
        ({"dedup": []}, r"dedup is a dictionary; got \[\]"),
        ({"splits": {"test_ratio": 1}}, "test_ratio is a share, 0 to below 1; got 1"),
        ({"splits": {"holdout_records": -1}}, "holdout_records is 0 or more; got -1"),
        ({"text": {"markers": "erase"}}, "markers is one of space, strip, drop, fail, keep; got 'erase'"),
        ({"text": {"extra_markers": [" "]}}, "extra_markers holds a blank one"),
        ({"text": {"max_bad_ratio": 2}}, "max_bad_ratio is a share, 0 to 1; got 2"),
        ({"personal_data": {"mail": "redact"}}, "personal_data: unknown kind 'mail'; there are email, phone"),
        ({"personal_data": {"email": "erase"}}, "personal_data: email is 'erase'; policies are redact"),
        ({"consent": {"require": True}}, "consent: unknown key 'require'; did you mean 'required'"),
    ],
)
def test_a_wrong_option_is_named_with_the_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_sanitize_settings({}, options)
