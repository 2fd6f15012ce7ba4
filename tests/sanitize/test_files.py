"""Files as warehouses, Excel and the hub leave them: every row is read as it stands there, or its line and reason are said."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.chat.sandbox import make_environment
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.reading.readers import read_rows, source_files, split_of

from .conftest import sanitize

PLAIN = [("q 0", "a"), ("q 1", "b"), ("q 2", "a")]


def table(rows: list[tuple[str, ...]], separator: str, end: str = "\n") -> bytes:
    return "".join(separator.join(row) + end for row in rows).encode()


def read(path: Path, content: bytes, encoding: str = "") -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    path.write_bytes(content)
    rows = list(read_rows(str(path), encoding=encoding))
    return [tuple(row.value.values()) for row in rows if not row.problem], [
        (row.line, row.problem) for row in rows if row.problem
    ]


HEAD = ("text", "label")
TABLES: dict[str, tuple[str, bytes, list[tuple[str, ...]]]] = {
    "commas": ("a.csv", table([HEAD, *PLAIN], ","), PLAIN),
    "semicolons": ("a.csv", table([HEAD, ("q, r", "a"), *PLAIN], ";", "\r\n"), [("q, r", "a"), *PLAIN]),
    "tabs in .csv": ("a.csv", table([HEAD, *PLAIN], "\t"), PLAIN),
    "bars": ("a.csv", table([HEAD, *PLAIN], "|"), PLAIN),
    "sep=": ("a.csv", b"sep=;\r\n" + table([HEAD, *PLAIN], ";", "\r\n"), PLAIN),
    "one column only": ("a.csv", b"text\nq; 0\nq\n", [("q; 0",), ("q",)]),
    "spaces behind commas": ("a.csv", table([("text", " label"), *((a, f" {b}") for a, b in PLAIN)], ","), PLAIN),
    "empty columns at the end": ("a.csv", b"text,label,\nq,a,\nr,b,\n", [("q", "a", ""), ("r", "b", "")]),
    "quotes behind spaces": ("a.csv", b'text,label\n"q, r", "a"\n"s", "b"\n', [("q, r", "a"), ("s", "b")]),
    "a last column without name or fields": ("a.csv", b"text,label,\nq,a\nr,b\n", [("q", "a", ""), ("r", "b", "")]),
    "sep= with spaces": ("a.csv", b"sep = ;\n" + table([HEAD, *PLAIN], ";"), PLAIN),
    "backslashes before quotes": ("a.csv", b'text,label\n"say \\"no\\", C:\\x",a\n', [('say "no", C:\\x', "a")]),
    "an inch in the middle": ("a.csv", b'text,label\n12" pipe,a\n', [('12" pipe', "a")]),
    "lines in a field": ("a.csv", b'text,label\n"Hi,\nI want ""it"",\nplease",a\nq,b\n', [('Hi,\nI want "it",\nplease', "a"), ("q", "b")]),
    "a table in a field": ("a.csv", b'text,label\n"Hello, you",a\n"Sum up:\nname,age\nAnn,4\nEve,5\n",b\n"x,y\nz,w\n",a\n',
                           [("Hello, you", "a"), ("Sum up:\nname,age\nAnn,4\nEve,5\n", "b"), ("x,y\nz,w\n", "a")]),
    "all quoted, other lines in fields": ("a.csv", b'"text";"label"\n"SELECT a, b\nFROM t, u\n";"a"\n"- x\n- y, z";"b"\n',
                                          [("SELECT a, b\nFROM t, u\n", "a"), ("- x\n- y, z", "b")]),
    "TSV as Excel quotes it": ("a.tsv", b'text\tlabel\n"Hi,\nthere"\ta\nq\tb\n', [("Hi,\nthere", "a"), ("q", "b")]),
    "TSV knows no quotes": ("a.tsv", b'text\tlabel\n"Hold" he said\ta\n"open\tb\n12" pipe\ta\nshut"\tb\n',
                            [('"Hold" he said', "a"), ('"open', "b"), ('12" pipe', "a"), ('shut"', "b")]),
    "TSV as pandas quotes it": ("a.tsv", b'text\tlabel\n"say ""no"""\ta\nq\tb\n', [('say "no"', "a"), ("q", "b")]),
    "TSV with all fields quoted": ("a.tsv", b'"text"\t"label"\n"q"\t"a"\n', [("q", "a")]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_its_writer_meant_it(name: str, tmp_path: Path) -> None:
    file, content, expected = TABLES[name]
    assert read(tmp_path / file, content) == (expected, [])


@pytest.mark.parametrize("closing", ['12" pipe,b', "q,b"], ids=["closed by an inch", "never closed"])
def test_a_quotation_mark_costs_one_row_and_swallows_none(closing: str, tmp_path: Path) -> None:
    rows = [f"row {number},{'ab'[number % 2]}" for number in range(3000)]
    for place in (100, 2500):
        rows[place] = f'"15 inch {place},a'
        rows[place + 3] = closing
    good, bad = read(tmp_path / "a.csv", "\n".join(["text,label", *rows]).encode())
    assert [line for line, _ in bad] == [102, 2502]
    assert len(good) == 2998
    assert all("quotation mark" in why for _, why in bad)


CELLS = st.text(st.sampled_from('ab ,;|"\'\\\n\t{}[]:é'), max_size=12) | st.sampled_from(
    ["a", "b", "Bob,3\nAnn,4", "x;y\nz;w\n", "sum:\nn,a\nB,3\nA,4\nE,5", 'say "no"', '5" disk', "sep=;", "# c", '[{"role": "user"}]']
)  # fmt: skip


@given(
    rows=st.lists(
        st.lists(CELLS, min_size=2, max_size=2).filter(lambda row: "".join(row).strip()), min_size=1, max_size=8
    ),
    delimiter=st.sampled_from(",;|\t"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_a_writer_of_csv_writes_is_read_as_it_was(
    rows: list[list[str]], delimiter: str, quoting: Any, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [["Hello, you; and | the", "other\ttext"], *rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([HEAD, *rows])
    file = tmp_path_factory.getbasetemp() / "table.csv"
    assert read(file, text.getvalue().encode()) == ([tuple(row) for row in rows], [])


WESTERN = [
    "Größe 0 €, „ÄÖÜ“", "l’été à Noël, cœur – ça", "¿Dónde está el niño?", "São João, ações, três", "perché è così", "smørrebrød på øl",
    "það er gott", "coöperatie, één", "café", "l'œuvre d’à côté", "5 m³, 20 °C, © 2024",
]  # fmt: skip
OTHERS = {
    "cp1250": ["Příliš žluťoučký kůň", "Zażółć gęślą jaźń", "idő és űrlap", "čeština, řeka"], "cp1251": ["привет мир", "добрый день"],
    "cp1253": ["καλημέρα"], "cp1254": ["ağır iş, ışık"], "mac_roman": ["Größe, café"], "cp850": ["Größe, café"], "shift_jis": ["こんにちは"],
    "gbk": ["你好世界"], "iso8859_2": ["łódź, żółw"],
}  # fmt: skip


def test_western_excel_files_are_told_by_their_letters_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending, separator in ((".csv", ";"), (".tsv", "\t")):
        rows = [(text, "a") for text in ("plain", *WESTERN, "plain again")]
        content = table([("téxt", "label"), *rows], separator).decode().encode("cp1252")
        assert read(tmp_path / f"a{ending}", content) == (rows, [])
        assert f"a{ending}: not UTF-8; read as cp1252, by its letters" in capsys.readouterr().out


def test_the_encoding_is_told_by_whole_rows_though_their_first_lines_are_ascii(tmp_path: Path) -> None:
    content = 'text;label\n"Hello,\nGrüße aus Köln";a\n"Bye,\nSchröder";b\nweiß;c\n'.encode("cp1252")
    rows = [("Hello,\nGrüße aus Köln", "a"), ("Bye,\nSchröder", "b"), ("weiß", "c")]
    assert read(tmp_path / "a.csv", content) == (rows, [])


@pytest.mark.parametrize("encoding", OTHERS)
def test_what_is_no_western_text_is_refused_and_read_on_request(encoding: str, tmp_path: Path) -> None:
    rows = [(text, "a") for text in OTHERS[encoding]]
    content = table([HEAD, *rows], "\t").decode().encode(encoding)
    good, bad = read(tmp_path / "a.tsv", content)
    assert good == []
    assert all("set text.encoding" in why for _, why in bad)
    assert read(tmp_path / "a.tsv", content, encoding) == (rows, [])


def test_a_bad_byte_of_a_file_in_utf_8_is_no_other_encoding(tmp_path: Path) -> None:
    good, ((line, why),) = read(tmp_path / "a.csv", "text,label\ncafé,a\n".encode() + b"caf\xe9,b\n")
    assert (good, line) == ([("café", "a")], 3)
    assert "not UTF-8" in why
    manifest = sanitize(tmp_path, sources=[{"name": "p", "uri": str(tmp_path / "a.csv")}], text={"encoding": "cp1252"})
    assert manifest.counts["p"].kept == 2
    with pytest.raises(ConfigError, match="encoding: 'latin-99' is not known"):
        sanitize(tmp_path, sources=[{"name": "p", "uri": str(tmp_path / "a.csv")}], text={"encoding": "latin-99"})


def test_a_column_that_stands_twice_is_refused_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label, text\nq,a,note\n")
    pq.write_table(pa.Table.from_arrays([pa.array(["q"])] * 2, names=["text", "text "]), str(tmp_path / "a.parquet"))
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match="column 'text' stands twice"):
            list(read_rows(str(tmp_path / name)))


Q, A = {"prompt": "q", "completion": "a"}, {"prompt": "r", "completion": "b"}
LINES = {
    "an array": (json.dumps([Q, A]), "an array; a file that is one array is named .json"),
    "pretty": (json.dumps(Q, indent=1), "a whole object in every line"),
    "a pretty array": (json.dumps([Q, A], indent=1), "a whole object in every line"),
    "glued": (json.dumps(Q) + json.dumps(A), "several objects in one line"),
    "carriage returns alone": (json.dumps(Q) + "\r" + json.dumps(A), "several objects in one line"),
    "commas behind": (json.dumps(Q) + ",\n" + json.dumps(A) + ",", "a comma behind it"),
    "Python's": (str(Q), "single quotation marks"),
    "comments": ("// " + json.dumps(Q), "a comment"),
    "half a pair": ('{"prompt": "\\ud800"}', "half a surrogate pair"),
    "NUL": ('{"prompt": "a\0b"}', "a NUL byte"),
}


@pytest.mark.parametrize("name", LINES)
def test_what_is_no_jsonl_says_what_it_is(name: str, tmp_path: Path) -> None:
    text, reason = LINES[name]
    good, bad = read(tmp_path / "a.jsonl", text.encode())
    assert not good
    assert any(reason in why for _, why in bad)


def test_a_line_above_the_header_is_guessed(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "a.csv", b"Report of 2024\n" + table([HEAD, *PLAIN], ","))
    assert not good
    assert bad[0] == (2, "2 fields where the header has 1; is there a line above it?")


def test_two_files_joined_with_their_byte_order_marks_lose_no_row(tmp_path: Path) -> None:
    line = b"\xef\xbb\xbf" + json.dumps(Q).encode() + b"\n"
    assert read(tmp_path / "a.jsonl", line * 3) == ([("q", "a")] * 3, [])


WHOLE: dict[str, tuple[Any, int]] = {
    "rows under data": ({"version": "1", "data": [Q, A]}, 2),
    "pandas, split": ({"columns": ["prompt", "completion"], "index": [0, 1], "data": [["q", "a"], ["r", "b"]]}, 2),
    "pandas, table": ({"schema": {"fields": []}, "data": [Q, A]}, 2),
    "columns": ({"prompt": ["q", "r"], "completion": ["a", "b"]}, 2),
    "one conversation": ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, 1),
    "by id": ({"1": Q, "2": A}, 2),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_object_of_json_holds_rows_or_is_one(name: str, tmp_path: Path) -> None:
    value, number = WHOLE[name]
    good, bad = read(tmp_path / "a.json", json.dumps(value).encode())
    assert (len(good), bad) == (number, [])
    assert good[0][-1] in ("a", value.get("messages"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"prompt": {"0": "q", "1": "r"}, "completion": {"0": "a", "1": "b"}}', "orient='records'"),
        ('[{"prompt": "q"}}', "what opens with \\[ closes with }"),
        ('{"a": {"prompt": "q"}]', "what opens with { closes with \\]"),
        ('{"train": [{"a": 1}], "data": [{"a": 1}]}', "several keys, or of another split: data, train"),
        ('{"train": [{"a": 1}], "test": [{"a": 1}]}', "another split: train, test; give each list as a file"),
        ('{"version": 1, "validation": [{"a": 1}]}', "another split: validation"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "a pointer of Git LFS"),
        ('{"a": 1, "b": nothing}', "element 2 cannot be read: not JSON"),
    ],
)
def test_a_json_file_of_another_build_is_refused_with_its_name(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path / "a.json", text.encode())


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-be", "UTF-32BE"),
    ],
)
def test_utf_16_and_32_are_told_with_and_without_their_mark(codec: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"`iconv -f {name} -t UTF-8 OLD > NEW`"):
        read(tmp_path / "a.jsonl", json.dumps(Q).encode(codec))


@pytest.mark.parametrize("codec", ["cp1252", "shift_jis", "gb18030"])
def test_json_of_another_encoding_is_refused_with_the_command_that_converts_it(codec: str, tmp_path: Path) -> None:
    text = {"cp1252": "Grüße", "shift_jis": "注文", "gb18030": "订单"}[codec]
    for name, content in (("a.jsonl", f'{{"text": "{text}"}}'), ("a.json", f'[{{"text": "{text}"}}]')):
        assert "iconv -f CP1252 -t UTF-8" in read(tmp_path / name, content.encode(codec))[1][0][1]


@pytest.mark.parametrize("ending", [".jsonlines", ".jl", ".JSONL", ".jsonl.GZ", ".jsonl.xz", ".jsonl.BZ2"])
def test_json_lines_are_read_by_every_name_that_they_have(ending: str, tmp_path: Path) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}.get(Path(ending).suffix.lower(), bytes)
    assert read(tmp_path / f"a{ending}", pack(json.dumps(Q).encode() + b"\n")) == ([tuple(Q.values())], [])


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a.txt", "pairs of question and answer as CSV"),
        ("a.docx", "pairs of question"),
        ("chat.html", "pairs of question"),
        ("nlu.yml", "one a row"),
        ("a.jsonc", "without comments"),
        ("a.zip", "unpack it"),
        ("a.xlsx", "save the sheet as CSV"),
    ],
)
def test_a_file_of_another_format_is_refused_with_the_way_that_fits_it(name: str, way: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=way):
        read(tmp_path / name, b"x")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_header_that_stands_again_between_rows_is_no_row(name: str, tmp_path: Path) -> None:
    content = table([HEAD, PLAIN[0], HEAD, PLAIN[1]], "\t" if name == "a.tsv" else ",")
    assert read(tmp_path / name, content) == ([PLAIN[0], PLAIN[1]], [(3, "the header again")])
    joined = content.replace(content[:4], b"\xef\xbb\xbf" + content[:4])  # two files of Excel's, one behind the other
    assert read(tmp_path / name, joined) == ([PLAIN[0], PLAIN[1]], [(3, "the header again")])


def test_objects_one_behind_the_other_are_refused_with_the_command_that_splits_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="jq -c"):
        read(tmp_path / "a.json", b'{"prompt": "q",\n "completion": "a"}\n{"prompt": "q",\n "completion": "a"}')


def records(path: Path) -> tuple[list[Any], Cleaner]:
    cleaner = Cleaner(SourceFile(pool="p", split="train", uri=str(path), columns={}), Rules(max_bad_ratio=1))
    return list(cleaner.records()), cleaner


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_list_of_messages_is_a_conversation(name: str, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    text = json.dumps([talk, talk]) if name == "a.json" else f"{json.dumps(talk)}\n" * 2
    (tmp_path / name).write_text(text)
    assert [record["messages"] for record in records(tmp_path / name)[0]] == [talk, talk]


NUMBERS = [
    "1.10",
    "1e5",
    "18446744073709551616",
    "9223372036854775807",
    "0.1",
    "-0.0",
    "-0",
    "1e400",
    "12345678901234567890.123",
]


def test_numbers_of_json_become_text_as_they_are_written(tmp_path: Path) -> None:
    lines = [f'{{"prompt": {number}, "completion": ["{number}"]}}' for number in NUMBERS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text(f"[{','.join(lines)}]")
    for name in ("a.jsonl", "a.json"):
        made, _ = records(tmp_path / name)
        assert [item["messages"][0]["content"] for item in made] == NUMBERS
        assert [item["messages"][1]["content"] for item in made] == NUMBERS


def test_numbers_of_calls_and_schemas_are_learned_as_they_are_written(tmp_path: Path) -> None:
    for number in [*NUMBERS, "1E+2", "19.90", "12345678901234567890123"]:
        call = {"type": "function", "function": {"name": "route", "arguments": f'{{"x": [{number}, 1.5]}}'}}
        row = {**called({"start": "A"}), "tools": [{"name": "route", "description": "d", "parameters": {"most": 0}}]}
        row["messages"][1]["tool_calls"] = [call, {"name": "route", "arguments": {"x": 0}}]
        (tmp_path / "a.jsonl").write_text(json.dumps(row).replace("0}", f"{number}}}"))
        sanitize(tmp_path, sources=[{"name": "p", "uri": str(tmp_path / "a.jsonl")}])
        (record,) = read_pools(str(tmp_path / "pools")).records("p", "train")
        environment = make_environment()
        template = environment.from_string(
            "{{ calls[0].arguments | tojson }} {{ calls[1].arguments.x }} {{ tools | tojson(indent=1) }}"
        )
        text = template.render(calls=record["messages"][1]["tool_calls"], tools=record["tools"])
        assert text.startswith(f'{{"x": [{number}, 1.5]}} {number} [')
        assert f'"most": {number}\n' in text


def test_nan_and_huge_numbers_of_an_unused_column_cost_no_row(tmp_path: Path) -> None:
    lines = [
        f'{{"prompt": "q {n}", "completion": "a", "score": {score}}}'
        for n, score in enumerate(["NaN", "1e400", "-Infinity", "0.5"])
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    made, cleaner = records(tmp_path / "a.jsonl")
    assert len(made) == 4
    assert cleaner.tally.unread == {"score": 3}


def called(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "route", "arguments": arguments}}
    tools = [{"type": "function", "function": {"name": "route", "description": "d", "parameters": {"properties": {name: {"type": "string"} for name in arguments}}}}]  # fmt: skip
    return {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}],
        "tools": tools,
    }


def test_nulls_that_a_schema_filled_in_go_and_nulls_that_were_given_stay(tmp_path: Path) -> None:
    rows = [called({"start": "A"}), called({"end": "B", "town": "C"})]
    pq.write_table(pa.Table.from_pylist(rows), str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    contents = [
        [(item["messages"], item["tools"]) for item in records(tmp_path / name)[0]] for name in ("a.parquet", "a.jsonl")
    ]
    assert contents[0] == contents[1]
    (tmp_path / "b.jsonl").write_text(json.dumps(called({"start": None})))
    assert records(tmp_path / "b.jsonl")[0][0]["messages"][1]["tool_calls"][0]["arguments"] == {"start": None}


def test_a_date_beyond_python_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    far = pa.array([10**18], pa.int64()).cast(pa.timestamp("us"))
    columns = {"prompt": ["q"], "completion": ["a"], "at": far, "deep": pa.StructArray.from_arrays([far], ["x"])}
    pq.write_table(pa.table(columns), str(tmp_path / "a.parquet"))
    made, cleaner = records(tmp_path / "a.parquet")
    assert len(made) == 1
    assert cleaner.tally.unread == {"at": 1, "deep": 1}


def test_maps_dictionaries_and_dates_of_arrow_are_read(tmp_path: Path) -> None:
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    messages = pa.array([[[("role", "user"), ("content", "q")], [("role", "assistant"), ("content", "a")]]], kind)
    pq.write_table(pa.table({"messages": messages}), str(tmp_path / "a.parquet"))
    assert [message["content"] for message in records(tmp_path / "a.parquet")[0][0]["messages"]] == ["q", "a"]
    columns = {"prompt": pa.array([datetime(2020, 1, 2)]), "completion": pa.array(["a"]).dictionary_encode()}
    pq.write_table(pa.table(columns), str(tmp_path / "b.parquet"))
    assert records(tmp_path / "b.parquet")[0][0]["messages"][0]["content"] == "2020-01-02T00:00:00"


def test_classes_of_a_hub_s_file_are_read_by_their_names(tmp_path: Path) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["late", "lost"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": ["q", "r", "s", "t"], "label": pa.array([1, 0, -1, 7])})
    for name, metadata in (("a", {"info": {"features": features}}), ("b", {"info": None}), ("c", ["x"])):
        written = table.replace_schema_metadata({b"huggingface": json.dumps(metadata).encode()})
        pq.write_table(written, str(tmp_path / f"{name}.parquet"))
    with_names, cleaner = records(tmp_path / "a.parquet")
    assert [record["label"] for record in with_names] == ["lost", "late", "7"]
    assert cleaner.tally.dropped == {"empty answer": 1}, "-1 is no class"
    for name in ("b", "c"):
        assert [record["label"] for record in records(tmp_path / f"{name}.parquet")[0]] == ["1", "0", "-1", "7"]


def test_short_floats_lists_of_classes_and_a_key_twice_in_parquet(tmp_path: Path) -> None:
    names = {"feature": {"names": ["late", "lost"], "_type": "ClassLabel"}, "_type": "List"}
    table = pa.table({"text": ["q"], "label": [[1]]})
    metadata = json.dumps({"info": {"features": {"label": names}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), str(tmp_path / "classes.parquet"))
    assert [record["label"] for record in records(tmp_path / "classes.parquet")[0]] == ["lost"]
    for kind in (pa.float32(), pa.float16()):
        values = pa.array([0.1, None, 3.5], pa.float32()).cast(kind)
        pq.write_table(pa.table({"text": ["q", "r", "s"], "label": values}), str(tmp_path / "floats.parquet"))
        assert [record["label"] for record in records(tmp_path / "floats.parquet")[0]] == ["0.1", "3.5"]
    pairs = pa.array([[("k", "v"), ("k", "w")], [("k", "v")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"prompt": ["q", "r"], "completion": pairs}), str(tmp_path / "maps.parquet"))
    kept, cleaner = records(tmp_path / "maps.parquet")
    assert [record["messages"][1]["content"] for record in kept] == ['{"k": "v"}']
    assert cleaner.tally.dropped == {"unreadable": 1}


def tar(name: str, content: bytes) -> bytes:
    stream, entry = io.BytesIO(), tarfile.TarInfo(name)
    entry.size = len(content)
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


TAR = tar("b.jsonl", b'{"prompt": "q", "completion": "a"}\n' * 100)


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        ("a.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
        ("a.csv", b"PK\x03\x04x", "an Excel workbook or a ZIP archive; save the sheet as CSV, or unpack it"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "compressed by gzip; give its name the ending .gz"),
        ("a.jsonl", bz2.compress(b"{}"), "compressed by bzip2; give its name the ending .bz2"),
        ("a.csv", lzma.compress(b"a,b"), "compressed by xz; give its name the ending .xz"),
        ("a.jsonl", bytes(pa.compress(b"{}", codec="zstd", asbytes=True)), "give its name the ending .zst"),
        ("a.jsonl", TAR, "a TAR archive; unpack it"),
        ("a.jsonl.gz", gzip.compress(TAR, mtime=0), "a TAR archive; unpack it"),
        ("a.jsonl", b"PAR1", "a Parquet file; give its name the ending .parquet"),
        ("a.csv", b"<!doctype html>", "a web page; fetch the file itself"),
        ("a.zip", b"PK", "unpack it"),
        ("a.pkl", b"x", "to load it is to run code; write JSONL or Parquet"),
        ("a.sqlite", b"x", "export its table as CSV or Parquet"),
        ("a.json", b"q", "neither a JSON array nor an object"),
    ],
)
def test_what_is_no_data_is_refused_by_name_with_the_way_out(
    name: str, content: bytes, way: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*{way}"):
        list(read_rows(source_files(str(tmp_path / name))[0]))


def test_folders_that_are_linked_into_one_are_read_once(tmp_path: Path) -> None:
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "a.jsonl").write_text("x")
    (tmp_path / "in" / "b.jsonl").symlink_to(tmp_path / "elsewhere" / "a.jsonl")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert source_files(str(tmp_path / "in")) == [f"{tmp_path}/in/{name}" for name in ("b.jsonl", "link/a.jsonl")]


def test_messages_that_python_cut_when_it_printed_them_into_a_table_are_refused_by_that(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "messages\n\"[{'role': 'user', 'content': 'q'} ... {'role': 'assistant', 'content': 'a'}]\"\n"
    )
    _, cleaner = records(tmp_path / "a.csv")
    assert "messages is not JSON (single quotation marks, as Python prints" in next(iter(cleaner.tally.unusable))


SPLITS = {
    "data/train-00000-of-00002.parquet": "train", "test.jsonl": "test", "tickets_test.csv": "test", "validation/a.jsonl": "validation",
    "dev-1.jsonl.gz": "validation", "Test/part-0.parquet": "test", "latest.jsonl": "", "driving-test-faq.csv": "", "tests/a.jsonl": "",
    "contest.jsonl": "", "test_sft-0.parquet": "test", "tickets_test_v2.csv": "test", "test01.csv": "test", "Test set (2).csv": "test",
    "tickets (test).csv": "test", "split=test/a.parquet": "test", "heldout.jsonl": "test", "evaluation.jsonl": "validation", "latest_2.csv": "", "a.jsonl": "",
}  # fmt: skip


@pytest.mark.parametrize("path", SPLITS)
def test_a_split_is_told_by_the_name_of_a_file_or_folder(path: str) -> None:
    assert split_of(path) == SPLITS[path]


def test_no_test_split_of_a_folder_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (
        "data/train-0.jsonl",
        "data/test-0.jsonl",
        "more.jsonl",
        "dev/a.jsonl",
        "README.md",
        "dataset_infos.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [path.removeprefix(f"{tmp_path}/") for path in source_files(str(tmp_path), "train")]
    assert names == ["data/train-0.jsonl", "more.jsonl"]
    assert (
        "left out, another split than 'train': data/test-0.jsonl, dev/a.jsonl; the customer's test file is given"
        in capsys.readouterr().out
    )
    assert source_files(str(tmp_path), "test") == [f"{tmp_path}/data/test-0.jsonl"]
    assert source_files(str(tmp_path / "data/test-0.jsonl"), "train")
    with pytest.raises(DataError, match=r"another split than 'train'.*name one of them"):
        source_files(str(tmp_path / "dev*/*"), "train")


def test_rows_of_another_split_by_their_column_are_left_out(tmp_path: Path) -> None:
    splits = ("train", "test", "dev", "en", "train_sft")
    rows = [{"prompt": f"q {split}", "completion": "a", "split": split} for split in splits]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made, cleaner = records(tmp_path / "a.jsonl")
    tally = cleaner.tally
    assert [item["messages"][0]["content"] for item in made] == ["q train", "q en", "q train_sft"]
    assert tally.dropped == {
        f"of another split than 'train' by its column `split`: {split}": 1 for split in ("test", "validation")
    }
    assert tally.unread == {"split": 1}


def test_a_folder_that_datasets_saved_is_read_without_its_metadata(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), pa.schema({"prompt": pa.string()})):
            pass
        for name in ("state.json", "dataset_info.json", "cache-0123abcd.arrow"):
            (folder / name).write_text("{}")
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert source_files(str(tmp_path), "train") == [f"{tmp_path}/train/data-00000-of-00001.arrow"]


def test_several_members_of_a_compressed_file_are_one_and_a_plain_file_says_so(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() + b"\r\n\r\n" for row in (Q, {**A, "prompt": "a\u2028b"})]
    zstd = [pa.compress(line, codec="zstd", asbytes=True) for line in lines]
    for ending, parts in ((".gz", map(gzip.compress, lines)), (".bz2", map(bz2.compress, lines)), (".zst", zstd)):
        assert read(tmp_path / f"a.jsonl{ending}", b"".join(parts)) == ([("q", "a"), ("a\u2028b", "b")], [])
    with pytest.raises(DataError, match=r"a.jsonl.gz: cannot be read as jsonl \(Not a gzipped file"):
        read(tmp_path / "a.jsonl.gz", lines[0])


def test_what_systems_leave_beside_the_data_is_no_data(tmp_path: Path) -> None:
    data = "lang=de/part-00000-abc.snappy.parquet"
    for name in (
        data,
        "_SUCCESS",
        ".part.crc",
        ".DS_Store",
        "__MACOSX/._train.jsonl",
        "._train.jsonl",
        ".ipynb_checkpoints/a.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert source_files(str(tmp_path), "train") == [f"{tmp_path}/{data}"]


NAMES = [
    "C# tickets.jsonl",
    "a#b/c.jsonl",
    "x#12.jsonl",
    "100%20.jsonl",
    "{{x}}.jsonl",
    "[1]*?.jsonl",
    "ünï cöde.jsonl",
]


@pytest.mark.parametrize("place", ["here", "s3"])
def test_odd_names_are_read_here_and_in_s3(place: str, tmp_path: Path, bucket: str) -> None:
    root = str(tmp_path / "in") if place == "here" else f"{bucket}/in"
    names = [*NAMES, "double//slash.jsonl"] if place == "s3" else NAMES
    for number, name in enumerate(names):
        with storage.open_write(f"{root}/{name}") as stream:
            stream.write(json.dumps({"prompt": f"q {number}", "completion": "a"}).encode())
    fingerprinted = storage.fingerprint(f"{root}/{NAMES[0]}")
    sources = [{"name": "p", "uri": uri} for uri in (root, *(f"{root}/{name}" for name in names), fingerprinted)]
    manifest = sanitize(tmp_path, sources=sources)
    assert manifest.counts["p"].read == 2 * len(names) + 1
    assert manifest.counts["p"].kept == len(names)
