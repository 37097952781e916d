#!/usr/bin/env python3
"""Judges the error texts that the tests have thrown (tests/support/thrown_texts.cpp): each must say where (a file, a
key, an option, a line, a rank ...) and what to do, or what would be right. Code 70 is a bug of ours, for us to read.

A heuristic: it finds the text that says only "cannot open" or "invalid value". thrown_texts.py FILE..."""
import re
import sys

PLACE = re.compile(r"""
    ^(the\ )?[\w .'/-]{1,80}:\s | /                     # "corpus.jsonl: ...", a path
  | \b[a-z_]+\.[a-zA-Z_]+ | --[a-z] | `[^`]+` | '[^']+' # a key, an option, a command, a word as it was written
  | \b(line|step|rank|ranks|byte|block|column|phase|attempt|document|shard|shards|stage|source|token\ id|mixture|
       recipe|corpus|input|output|machine|memory|process|cuda|CUDA|loss|run)\b""", re.VERBOSE)
REMEDY = re.compile(r"""
    \b(set|use|give|name|raise|lower|take|write|build|make|look|run|start|restore|choose|ask|add|remove|rename|see|try|
       wait|put|begin|go|did\ you\ mean|leave|move|delete|train|let|free|mend|change|copy|split|pass|install|allow|open|
       keep|check|convert|save|resume|goes\ on|lists|unpack|follow|become|several\ are|takes|nothing\ to\ do)\b
  | \b(needs?|needed|must|at\ most|at\ least|expected|has\ to|have\ to|only|allowed|can\ be|may|between|one\ of|more\ than|
       less\ than|instead|larger|smaller|beyond|below|outside|missing|twice|possible|none|no|not|nowhere|damaged|ends|
       exceed\w*|deeper|but|two|bytes\ of|has\ ended|is\ already|the\ most|limit)\b
  | syntax\ error""", re.VERBOSE)
# Thrown inside and caught there, or in the name of who called: no user sees them as they stand.
INSIDE = re.compile(r"""^(the\ value\ is\ not | a\ line\ of\ | \w+\ is\ missing$ | \w+\ =\ \S+$ | -?\d+\ seconds$ | attempt\ \d+$ |
  file:\d | : | cap\ of\ | stuck$ | the\ disk\ went\ away$ | stopped\ while\ )""", re.VERBOSE)
BUG = "70"


def main():
    texts = {}
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8", errors="replace") as file:
            for line in file:
                code, _, text = line.rstrip("\n").partition("\t")
                if code != BUG and not INSIDE.match(text):
                    texts.setdefault(re.sub(r"\d+", "0", text), (code, text))
    poor = []
    for code, text in texts.values():
        lacks = [name for name, rule in (("place", PLACE), ("remedy", REMEDY)) if not rule.search(text)]
        if lacks:
            poor.append(f"{code} lacks a {' and a '.join(lacks)}: {text}")
    print(f"{len(texts)} texts, {len(poor)} of them poor")
    print("\n".join(sorted(poor)))
    if len(texts) < 100:
        sys.exit("so few texts: were the tests run with the library preloaded?")
    sys.exit(1 if poor else 0)


if __name__ == "__main__":
    main()
