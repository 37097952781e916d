#!/usr/bin/env python3
"""Peak memory of `shoestring data build` over generated text of several sizes.

  tools/bench/build_memory.py PROGRAM FOLDER SIZE... [--json FILE]

Sizes as 1e9. FOLDER needs room for the largest text and half of it again; what is written there is removed. The text is
lines of JSON of about 4 KB, made of sentences that repeat and numbers that do not, the same for the same size. The
tokenizer is trained once, on a megabyte, so that its memory is no part of any figure: training's does not depend on the
corpus, and would hide what does. Told apart: what a build holds, looked at twenty times a second, and the most that was
resident, with the pages of its mapped journal, 160 bytes a document, which are the system's to take back.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time


def write_text(path, size):
    draw = random.Random(16)
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbgk", k=draw.randint(2, 9))) for _ in range(20000)]
    sentences = [" ".join(draw.choices(words, k=draw.randint(6, 24))) + "." for _ in range(20000)]
    with open(path, "w", encoding="ascii") as out:
        written = document = 0
        while written < size:
            text = f"{document} " + " ".join(draw.choices(sentences, k=draw.randint(8, 72)))
            written += out.write('{"text": "' + text + '"}\n')
            document += 1
    return document


def own_bytes(process):
    """Resident now and of no file."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def build(program, text, out, tokenizer):
    """Wall-clock, the most bytes of its own and the most resident bytes of one build."""
    command = [program, "data", "build", str(text), "--out", str(out), "--tokenizer", str(tokenizer)]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        own, status = 0, None
        while status is None:
            own = max(own, own_bytes(child.pid))
            time.sleep(0.05)
            ended, code, usage = os.wait4(child.pid, os.WNOHANG)
            status = code if ended else None
        if status != 0:
            said.seek(0)
            sys.exit(f"{' '.join(command)}: {said.read()}")
    return time.monotonic() - begin, own, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("sizes", type=lambda word: int(float(word)), nargs="+")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    place = arguments.folder / "build_memory"
    place.mkdir(parents=True)
    try:
        write_text(place / "sample.jsonl", 1_000_000)
        subprocess.run([arguments.program, "data", "build", place / "sample.jsonl", "--out", place / "sample"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = []
        for size in arguments.sizes:
            documents = write_text(place / "text.jsonl", size)
            seconds, own, resident = build(arguments.program, place / "text.jsonl", place / "shards",
                                           place / "sample" / "tokenizer.model")
            shutil.rmtree(place / "shards")
            rows.append({"bytes": size, "documents": documents, "seconds": round(seconds, 1), "own_bytes": own,
                         "resident_bytes": resident,
                         "over_first": round(own / rows[0]["own_bytes"], 4) if rows else 1.0})
            print(f"{size / 1e9:g} GB, {documents} documents: {own / 1e6:.1f} MB of its own, {resident / 1e6:.1f} MB "
                  f"resident, {seconds:.0f} s", flush=True)
    finally:
        shutil.rmtree(place)
    if arguments.json:
        document = {"schema": "shoestring.build_memory/1", "cores": os.cpu_count(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
