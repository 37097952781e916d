"""Reads a token shard with h5py, an implementation of the format that is not ours, and checks every rule of DESIGN.md.

usage: shard_h5py.py SHARD EXPECTED      EXPECTED: text, one document a line, ids separated by blanks
"""
import sys

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def main(path, expected_path):
    with open(expected_path) as lines:
        expected = [[int(word) for word in line.split()] for line in lines]
    with h5py.File(path, "r", locking=False) as shard:
        assert set(shard.keys()) == {"tokens", "doc_ends", "block_checksums"}, list(shard.keys())
        attributes = dict(shard.attrs)
        vocabulary = int(attributes["vocabulary_size"])
        end = int(attributes["end_of_document"])
        tokens, ends, checksums = shard["tokens"], shard["doc_ends"], shard["block_checksums"]
        assert tokens.dtype == np.dtype("<u2" if vocabulary <= 65536 else "<u4"), tokens.dtype
        assert ends.dtype == np.dtype("<u8") and checksums.dtype == np.dtype("<u8")
        for dataset in (tokens, ends, checksums):
            assert dataset.chunks is None and dataset.compression is None and dataset.external is None
            assert not dataset.is_virtual and dataset.maxshape == dataset.shape
            assert dataset.id.get_offset() % 4096 == 0, dataset.id.get_offset()
        ids = tokens[...].astype(np.int64)
        bounds = ends[...].astype(np.int64)
        block = int(attributes["block_bytes"])
        blocks = -(-ids.size * tokens.dtype.itemsize // block) + -(-bounds.size * 8 // block)
        assert checksums.shape == (blocks,), (checksums.shape, blocks)
        with open(path, "rb") as raw:
            raw.seek(tokens.id.get_offset())
            mapped = np.frombuffer(raw.read(ids.size * tokens.dtype.itemsize), dtype=tokens.dtype)
        assert (mapped == ids).all(), "the bytes at the located offset are not the dataset"
    assert int(attributes["format_version"]) == 1 and int(attributes["complete"]) == 1
    assert int(attributes["token_count"]) == ids.size and int(attributes["document_count"]) == bounds.size
    assert attributes["tokenizer_hash"] in (b"test-tokenizer", "test-tokenizer", np.bytes_(b"test-tokenizer"))
    assert ids.max() < vocabulary
    begin = 0
    assert len(expected) == bounds.size, (len(expected), bounds.size)
    for number, (document, bound) in enumerate(zip(expected, bounds)):
        assert list(ids[begin:bound]) == document + [end], f"document {number}"
        begin = bound
    assert begin == ids.size
    print(f"{bounds.size} documents, {ids.size} tokens agree")


main(*sys.argv[1:])
