#!/usr/bin/env python3
"""Judges the error texts that the tests have thrown (tests/support/thrown_texts.cpp): each must say where (a file, a
key, an option, a line, a rank ...) and what to do, or what would be right. Code 70 is a bug of ours, for us to read.

A heuristic: it finds the text that says only "cannot open" or "invalid value". thrown_texts.py FILE..."""
import re
import sys

PLACE = re.compile(r"""
    ^(the\ )?[\w .'/-]{1,80}(:\d+)*:\s | /             # "corpus.jsonl:3: ...", a path
  | \b[a-z_]+\.[a-zA-Z_]+ | --[a-z] | `[^`]+` | '[^']+' # a key, an option, a command, a word as it was written
  | \b(line|step|rank|ranks|byte|block|column|phase|attempt|document|shard|shards|stage|source|token\ id|mixture|
       recipe|chat\ format|corpus|input|output|machine|memory|process|cuda|CUDA|loss|run)\b""", re.VERBOSE)
REMEDY = re.compile(r"""
    \b(set|use|give|name|raise|lower|take|write|build|make|look|run|start|restore|choose|ask|add|remove|rename|see|try|
       wait|put|begin|go|did\ you\ mean|leave|move|delete|train|let|free|mend|change|copy|split|pass|install|allow|open|
       keep|check|convert|fetch|save|say|resume|goes\ on|lists|unpack|follow|become|several\ are)\b
  | \b(needs?|needed|must|at\ most|at\ least|expected|has\ to|have\ to|only|allowed|can\ be|may|between|one\ of|
       there\ are|these\ are|more\ than|less\ than|instead|larger|smaller|beyond|below|outside|exceed\w*|limit)\b
  | syntax\ error                                        # at a line and column""",
                    re.VERBOSE)
# What tests throw themselves.
INSIDE = re.compile(r"""^(the\ value\ must\ be | \w+\ is\ missing, | some/file: | a\ line\ of\ | \w+\ =\ \S+$ | -?\d+\ seconds$ | attempt\ \d+$ |
  file:\d | : | cap\ of\ | stuck$ | the\ disk\ went\ away$ | stopped\ while\ | no\ room\ for\ the\ fourth$ |
  out\ of\ memory$ | rank\ 1\ failed$ | loss\ is\ not\ finite$ )""", re.VERBOSE)
FAILED = re.compile(r"\b(cannot|could\ not|failed\ to)(\ be)?\ \w+", re.VERBOSE)  # "cannot open" asks nobody to open
BUG = "70"


def judge(lines):
    """How many different texts there are, and what is wrong with which. What another text ends with was caught and
    given its place: the whole is judged."""
    texts = {}
    for line in lines:
        code, _, text = line.rstrip("\n").partition("\t")
        text = text.replace("\\n", "\n")
        if code != BUG and not INSIDE.match(text):
            texts.setdefault(re.sub(r"\d+", "0", text), (code, text))
    ends = {text[colon.end():] for text in texts for colon in re.finditer(": ", text)}
    poor = []
    for short, (code, text) in texts.items():
        found = {"place": PLACE.search(text), "remedy": REMEDY.search(FAILED.sub("", text))}
        lacks = [name for name, place in found.items() if not place]
        if lacks and short not in ends:
            poor.append(f"{code} lacks a {' and a '.join(lacks)}: {text}")
    return len(texts), sorted(poor)


def main():
    count, poor = judge(line for name in sys.argv[1:] for line in open(name, encoding="utf-8", errors="replace"))
    print(f"{count} texts, {len(poor)} of them poor")
    print("\n".join(poor))
    if count < 100:
        sys.exit("so few texts: were the tests run with the library preloaded?")
    sys.exit(1 if poor else 0)


if __name__ == "__main__":
    main()
