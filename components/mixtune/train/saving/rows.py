"""The rows of a checkpoint: copied from a training, written as safetensors, and read back by whoever holds them then.

A file holds tensors of one kind from one process; its metadata says which row of the whole tensor each begins with. A
process that goes on reads the headers, and of the rest its own rows alone, by ranges: with eight processes a node every
byte is fetched once, not eight times. Local files are held against their SHA-256, objects in S3 against their size.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from mixtune import storage
from mixtune.errors import DataError
from mixtune.train.modeling.trainable import local_rows
from mixtune.train.trainer import Trainer

KINDS = ("weights", "exp_avg", "exp_avg_sq")
HEADER_BYTES = 256 * 1024
"""Read of a file at once: most headers are shorter."""
BLOCK_BYTES = 32 * 2**20
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

Part = tuple[dict[str, torch.Tensor], dict[str, str]]
"""Tensors of one kind by name, and the first row of each as text: the file's metadata."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of one tensor within a file."""

    reader: storage.RangeReader
    begin: int
    """First byte within the file."""
    first_row: int
    num_rows: int
    row_bytes: int
    dtype: torch.dtype

    def read_into(self, rows: torch.Tensor, first_row: int) -> int:
        """Fill in what this piece has of contiguous rows of its dtype on the CPU, and return how many these are.

        `first_row` is the number of the first of them in the whole tensor.
        """
        low = max(first_row, self.first_row)
        high = min(first_row + rows.shape[0], self.first_row + self.num_rows)
        if low >= high:
            return 0
        target = memoryview(rows[low - first_row : high - first_row].view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        source = self.begin + (low - self.first_row) * self.row_bytes
        for offset in range(0, len(target), BLOCK_BYTES):
            self.reader.read_into(source + offset, target[offset : offset + BLOCK_BYTES])
        return high - low


def copy_rows(trainer: Trainer) -> dict[str, Part]:
    """Return this process's rows by kind, copied to the CPU; kinds of which it holds none are left out."""
    parts: dict[str, Part] = {kind: ({}, {}) for kind in KINDS}
    for name, parameter in trainer.model.parameters().items():
        state = trainer.optimizer.state.get(parameter, {})  # none where it never had a gradient
        for kind in KINDS:
            value = parameter if kind == "weights" else state.get(kind)
            if value is None:
                continue
            rows, offset, is_owner = local_rows(value.detach(), trainer.group.is_main)
            if is_owner and rows.numel():
                parts[kind][0][name] = rows.to("cpu", copy=True).contiguous()
                parts[kind][1][name] = str(offset)
    return {kind: part for kind, part in parts.items() if part[0]}


def write_part(part: Part, scratch: Path, uri: str) -> storage.FileEntry:
    """Write tensors to a file and bring it to its place; neither holds the interpreter while bytes move."""
    path = scratch / uri.rsplit("/", 1)[-1]
    save_file(part[0], path, part[1])
    return storage.move_in(path, uri)


def restore_rows(folder: str, entries: tuple[storage.FileEntry, ...], steps_done: int, trainer: Trainer) -> None:
    """Fill in this process's rows of weights and moments from whichever files hold them.

    Raises:
        DataError: A file is missing, cut or changed, or rows are in none.
    """
    files = [(storage.join(folder, entry.path), entry) for entry in entries]
    readers = storage.in_threads(lambda item: _open(*item), files)
    try:
        pieces: dict[tuple[str, str], list[Piece]] = {}
        for (_, entry), reader in zip(files, readers, strict=True):
            for name, piece in _read_header(reader, entry.path).items():
                pieces.setdefault((entry.path.split("-")[0], name), []).append(piece)
        _check_whole_files(files, trainer)
        _fill_in(pieces, steps_done, trainer)
    finally:
        for reader in readers:
            reader.close()


def _fill_in(pieces: dict[tuple[str, str], list[Piece]], steps_done: int, trainer: Trainer) -> None:
    device, jobs = trainer.group.device, []
    for name, parameter in trainer.model.parameters().items():
        state = {kind: torch.zeros_like(parameter) for kind in KINDS[1:] if (kind, name) in pieces}
        if state:
            trainer.optimizer.state[parameter] = {**state, "step": _step(steps_done, trainer, device)}
        for kind, value in (("weights", parameter), *state.items()):
            rows, offset, _ = local_rows(value.detach(), True)
            jobs.append(_reading(rows, offset, pieces.get((kind, name), []), f"{kind} of {name}"))
    storage.in_threads(lambda job: job(), jobs)


def _step(steps_done: int, trainer: Trainer, device: torch.device) -> torch.Tensor:
    """Return AdamW's own count, on the device where its kernel is fused."""
    fused = bool(trainer.optimizer.param_groups[0].get("fused"))
    return torch.tensor(float(steps_done), device=device if fused else "cpu")


def _reading(rows: torch.Tensor, offset: int, pieces: list[Piece], words: str) -> Callable[[], None]:
    def read() -> None:
        if not rows.shape[0]:
            return
        dtype = pieces[0].dtype if pieces else rows.dtype
        on_cpu = torch.empty(rows.shape, dtype=dtype)
        num_rows = sum(piece.read_into(on_cpu, offset) for piece in pieces)
        if num_rows != rows.shape[0]:
            raise DataError(f"checkpoint: {rows.shape[0] - num_rows} rows of the {words} are in no file; delete it")
        with torch.no_grad():
            rows.copy_(on_cpu)

    return read


def _open(uri: str, entry: storage.FileEntry) -> storage.RangeReader:
    try:
        reader = storage.RangeReader(uri)
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file; delete this checkpoint") from error
    if reader.num_bytes != entry.num_bytes:
        raise DataError(f"{uri}: {reader.num_bytes} bytes, the manifest says {entry.num_bytes}; delete this checkpoint")
    return reader


def _read_header(reader: storage.RangeReader, path: str) -> dict[str, Piece]:
    """Return the pieces of a safetensors file by the names of their tensors (8 bytes of length, JSON, bytes)."""
    first = reader.read(0, min(HEADER_BYTES, reader.num_bytes))
    size = int.from_bytes(first[:8], "little")
    if size > reader.num_bytes - 8:
        raise DataError(f"{path}: not a safetensors file; delete this checkpoint")
    text = first[8 : 8 + size] if len(first) >= 8 + size else reader.read(8, size)
    header = json.loads(text)
    offsets = header.pop("__metadata__", {})
    pieces = {}
    for name, item in header.items():
        begin, end = item["data_offsets"]
        num_rows = item["shape"][0]
        pieces[name] = Piece(
            reader=reader,
            begin=8 + size + begin,
            first_row=int(offsets[name]),
            num_rows=num_rows,
            row_bytes=(end - begin) // max(1, num_rows),
            dtype=_DTYPES[item["dtype"]],
        )
    return pieces


def _check_whole_files(files: list[tuple[str, storage.FileEntry]], trainer: Trainer) -> None:
    """Check local files against their SHA-256, each by one process of a node; a DataError where one was changed."""
    group = trainer.group
    for uri, entry in files[group.local_rank :: group.local_size]:
        if not storage.is_s3(uri) and storage.sha256_file(uri) != entry.sha256:
            raise DataError(f"{uri}: its SHA-256 is not the manifest's; delete this checkpoint")
