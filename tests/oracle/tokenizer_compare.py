"""Compares our tokens with those of the library `tokenizers`, on the tokenizer file of a published model.

    tokenizer_compare.py TOKENIZER_DUMP FAMILY [CORPUS_FOLDER...]

Texts: llama.cpp's 47 vectors (with their ids where the family has them), 200,000 random characters of all kinds, and up
to 10 MB of the files in the folders named (/usr/include, /usr/share/doc). Ids must be equal, and decoding must give
back the text. A tokenizer with half its merges must not pass. The library is given no added tokens: text
never becomes one here. Exit code 77 (skipped) where a module or a file cannot be had.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

SKIPPED = 77
try:
    import numpy
    import tokenizers
    import tokenizer_files
    if sys.argv[2] == "smollm2":
        import gguf
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

FUZZ_CHARACTERS = 200_000
CORPUS_BYTES = 10_000_000
CORPUS_FOLDERS = ["/usr/include", "/usr/share/doc"]
UNICODE = (0, 0x110000)
RANGES = [(0x20, 0x7F), (0x20, 0x7F), (0x09, 0x0E), (0x30, 0x3A), (0x80, 0x250), (0x300, 0x370), (0x370, 0x530),
          (0x590, 0x700), (0x900, 0x980), (0x1100, 0x1200), (0x2000, 0x2070), (0x2150, 0x2190), (0x3000, 0x3100),
          (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0x1F300, 0x1F650), UNICODE]
CHARACTERS = tokenizer_files.byte_characters()
WORDS = ["'s", "'LL", "'\u017f", " 've", "12345", "\r\n\r\n", "   ", " \n ", "\u00a0", "\u3000", "e\u0301", "<|im_end|>",
         "#include <a.h>\n", "\t\treturn x;", "!!\n\n", "\u180e", "\ufeff", "\u200d"]


def fuzz(seed):
    random.seed(seed)
    text, size = [], 0
    while size < FUZZ_CHARACTERS:
        if random.random() < 0.3:
            piece = random.choice(WORDS)
        else:
            low, high = random.choice(RANGES)
            piece = "".join(chr(random.randrange(low, high)) for _ in range(random.randrange(1, 8)))
            piece = "".join(c for c in piece if unicodedata.category(c) not in ("Cs", "Cn"))
        text.append(piece)
        size += len(piece)
    return "".join(text)


def corpus(folders):
    parts, size = [], 0
    for folder in folders:
        for parent, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                try:
                    with open(os.path.join(parent, name), encoding="utf-8", newline="") as file:
                        parts.append(file.read())
                except (OSError, UnicodeDecodeError):
                    continue
                size += len(parts[-1].encode())
                if size >= CORPUS_BYTES:
                    return "".join(parts)
    return "".join(parts)


def run(program, tokenizer, what, contents):
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, str(i)) for i in range(len(contents))]
        for name, content in zip(names, contents):
            with open(name, "wb") as file:
                file.write(content)
        return subprocess.run([program, tokenizer, what, *names], check=True, stdout=subprocess.PIPE).stdout


def encode(program, tokenizer, contents):
    """The ids of each."""
    words, at, all_ids = numpy.frombuffer(run(program, tokenizer, "encode", contents), dtype=numpy.uint32), 0, []
    for _ in contents:
        end = at + 1 + int(words[at])
        all_ids.append(words[at + 1:end])
        at = end
    return all_ids


def library(path, damaged=False):
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    content["added_tokens"], content["post_processor"] = [], None
    if damaged:
        content["model"]["merges"] = content["model"]["merges"][:len(content["model"]["merges"]) // 2]
        content["model"]["ignore_merges"] = False
    return tokenizers.Tokenizer.from_str(json.dumps(content)), content["normalizer"]


def difference(ours, theirs, text, encoding):
    if numpy.array_equal(ours, theirs):
        return None
    both = min(len(ours), len(theirs))
    at = int(numpy.argmax(ours[:both] != theirs[:both])) if (ours[:both] != theirs[:both]).any() else both
    begin = encoding.offsets[min(at, len(encoding.offsets) - 1)][0]
    return f"differ at token {at} of {len(theirs)}, near {text[max(0, begin - 20):begin + 20]!r}"


def check_texts(program, path, texts, failures):
    """Our ids of each text, by name."""
    reference, normalizer = library(path)
    nfc = normalizer is not None and normalizer["type"] == "NFC"
    ours = dict(zip(texts, encode(program, path, [text.encode() for text in texts.values()])))
    back = run(program, path, "decode", [ids.tobytes() for ids in ours.values()])
    lacks = set(map(chr, range(128))) - {chr(c) for c in range(128) if reference.token_to_id(CHARACTERS[c]) is not None}
    expected = "".join(unicodedata.normalize("NFC", text) if nfc else text for text in texts.values())
    if back.decode() != "".join(c for c in expected if c not in lacks):
        failures.append("the texts do not come back from their tokens")
    decoded = []
    for name, text in texts.items():
        encoding = reference.encode(text, add_special_tokens=False)
        theirs = numpy.array(encoding.ids, dtype=numpy.uint32)
        decoded.append(reference.decode(encoding.ids))
        wrong = difference(ours[name], theirs, text, encoding)
        print(f"{name}: {len(text.encode())} bytes, {len(theirs)} tokens, {wrong or 'equal'}")
        if wrong:
            failures.append(f"{name}: {wrong}")
    if back.decode() != "".join(decoded):
        failures.append("the tokens decode to another text than the library's")
    return ours


def main():
    program, family, folders = sys.argv[1], sys.argv[2], sys.argv[3:] or CORPUS_FOLDERS
    try:
        path = tokenizer_files.tokenizer_file(family)
        texts, ids = tokenizer_files.vectors(family)
    except tokenizer_files.NotThere as missing:
        print(f"skipped: {missing}")
        return SKIPPED
    failures = []
    named = {f"vector {i}": text for i, text in enumerate(texts)}
    named["fuzz"], named["corpus"] = fuzz(1), corpus(folders)
    ours = check_texts(program, path, named, failures)
    for i, expected in enumerate(ids or []):
        if ours[f"vector {i}"].tolist() != expected:
            failures.append(f"vector {i}: not the ids that come with it")
    damaged = library(path, damaged=True)[0].encode(named["corpus"][:1_000_000], add_special_tokens=False).ids
    if damaged == ours["corpus"][:len(damaged)].tolist():
        failures.append("a tokenizer with half its merges gives the same tokens: the comparison sees nothing")
    noise = random.Random(2).randbytes(100_000)
    back = run(program, path, "decode", [encode(program, path, [noise])[0].tobytes()])
    if back != noise and family in ("llama3", "deepseek"):  # the others ask for NFC or lack bytes
        failures.append("bytes that are no UTF-8 do not come back")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
