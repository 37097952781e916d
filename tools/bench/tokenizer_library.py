"""Encodes 10 MB of /usr/include and /usr/share/doc with our tokenizer and with PyPI's `tokenizers`, one thread each, side
by side, and writes the figures as JSON.

    tokenizer_library.py TOKENIZER_DUMP > RESULT.json

Files and corpus are those of tests/oracle/tokenizer_compare.py, which shows that the tokens are equal; both sides get the
text in pieces of 64 KiB. Of each side the best of three (the library, by `encode` and by `encode_batch_fast`, of which
the faster counts) or five (ours) times over all of it.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
program = sys.argv[1]
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "oracle"))
import tokenizer_files
sys.argv[2:] = ["smollm2"]
import tokenizer_compare
import tokenizers

PIECE = 1 << 16


def seconds(call):
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def compare(family, text, path):
    place = tokenizer_files.tokenizer_file(family)
    library = tokenizer_compare.library(place)[0]
    pieces = [text[at:at + PIECE].decode(errors="ignore") for at in range(0, len(text), PIECE)]
    one = seconds(lambda: [library.encode(piece, add_special_tokens=False) for piece in pieces])
    batch = seconds(lambda: library.encode_batch_fast(pieces, add_special_tokens=False))
    ours = float(subprocess.run([program, place, "time", path], stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0])
    megabytes = len(text) / 1e6
    return {"ours_mb_s": round(megabytes / ours, 2), "library_encode_mb_s": round(megabytes / one, 2),
            "library_encode_batch_fast_mb_s": round(megabytes / batch, 2), "ratio": round(min(one, batch) / ours, 1)}


def main():
    text = tokenizer_compare.corpus(tokenizer_compare.CORPUS_FOLDERS).encode()
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        families = {family: compare(family, text, file.name) for family in tokenizer_files.PACKAGES}
    print(json.dumps({"schema": "shoestring.bench_tokenizer/1", "library": f"tokenizers {tokenizers.__version__}",
                      "corpus_bytes": len(text), "threads": 1, "goal_ratio": 5, "families": families}, indent=1))


main()
