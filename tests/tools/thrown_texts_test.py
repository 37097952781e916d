#!/usr/bin/env python3
"""The judge of error texts finds what is poor, and lets pass what is not."""
import thrown_texts


def poor(*texts):
    return [text.split(": ", 1)[0] for text in thrown_texts.judge(f"65\t{text}" for text in texts)[1]]


assert poor("cannot open") == ["65 lacks a place and a remedy"]
assert poor("x.jsonl:3: is no object") == ["65 lacks a remedy"]
assert poor("the count is 0; it must be 1") == ["65 lacks a place"]
assert poor("x.jsonl:3: is no object; leave the line out", "--top-k is 0; it must be 1 or more") == []
assert poor("is no object; leave it out", "x.jsonl:3: is no object; leave it out") == []  # caught, and given its place
assert poor("two of them\\nuse one, of shard 3") == []
assert thrown_texts.judge(["70\tsomething"]) == (0, [])  # a bug of ours
