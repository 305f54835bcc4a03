"""Megatron's own reader and writer of token files against Moesaic's.

    python tests/reference/check_megatron.py            # needs torch, numpy, megatron-core; writes nothing that is kept
    python tests/reference/check_megatron.py --write    # makes the fixture tests/reference/megatron/ again

A pair written by `moesaic data prepare` is read by megatron.core's IndexedDataset, and a pair written by its
IndexedDatasetBuilder is read by Moesaic (`data prepare --to npy`): the same ids, and with IndexedDataset the same
documents. The unit tests read the fixture.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/moesaic"
FIXTURE = ROOT / "tests/reference/megatron"
INTEGERS = [numpy.uint8, numpy.int8, numpy.int16, numpy.int32, numpy.int64, numpy.uint16]


def sentence(index, length, dtype):
    """Ids that tell where they belong; below 100, so that every type holds them."""
    return torch.tensor([(7 * index + i) % 100 for i in range(length)]).to(torch.int64).numpy().astype(dtype)


def write_pair(prefix, dtype, lengths_of_documents):
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    index = 0
    for lengths in lengths_of_documents:
        for length in lengths:
            builder.add_item(torch.from_numpy(sentence(index, length, numpy.int64)))
            index += 1
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def moesaic(*arguments):
    result = subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def check_their_pair(folder, dtype):
    documents = [[3, 4], [5], [], [1, 1, 300]]
    prefix = folder / f"theirs_{numpy.dtype(dtype).name}"
    write_pair(prefix, dtype, documents)
    moesaic("data", "prepare", prefix, "-o", f"{prefix}_ids", "--to", "npy", "--tokenizer", "none", "--vocabulary", 100)
    theirs = IndexedDataset(str(prefix))
    expected = numpy.concatenate([theirs[i] for i in range(len(theirs))])
    found = numpy.load(f"{prefix}_ids.npy")
    assert (expected == found).all() and len(expected) == len(found), dtype
    moesaic("data", "prepare", prefix, "-o", f"{prefix}_again", "--to", "megatron", "--tokenizer", "none", "--vocabulary", 100)
    again = IndexedDataset(f"{prefix}_again")
    lengths = [sum(d) for d in documents if d]
    assert again.sequence_lengths.tolist() == lengths, again.sequence_lengths
    assert again.document_indices.tolist() == list(range(len(lengths) + 1)), again.document_indices
    assert (numpy.concatenate([again[i] for i in range(len(again))]) == expected).all()


def check_our_pair(folder):
    lines = ['{"text": "one"}', '{"text": "two and more"}', '{"text": ""}', '{"text": "\\u00e9"}']
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    moesaic("data", "prepare", folder / "a.jsonl", "-o", folder / "ours", "--to", "megatron", "--append-eod")
    ours = IndexedDataset(str(folder / "ours"))
    assert ours.index.dtype == numpy.uint16
    texts = [b"one\0", b"two and more\0", b"\0", "é\0".encode()]
    assert [bytes(ours[i].astype(numpy.uint8)) for i in range(len(ours))] == texts
    assert ours.document_indices.tolist() == [0, 1, 2, 3, 4]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the fixture again")
    if parser.parse_args().write:
        FIXTURE.mkdir(exist_ok=True)
        write_pair(FIXTURE / "three_documents", numpy.uint16, [[3, 4], [5], [1, 1, 30]])
        write_pair(FIXTURE / "wide", numpy.int32, [[6], [2, 2]])
        return
    with tempfile.TemporaryDirectory() as folder:
        for dtype in INTEGERS:
            check_their_pair(pathlib.Path(folder), dtype)
        check_our_pair(pathlib.Path(folder))
    print(f"{len(INTEGERS)} types of ids written by megatron.core read alike; our pair read by its IndexedDataset")


if __name__ == "__main__":
    sys.exit(main())
