#!/usr/bin/env python3
"""The table of a campaign of faults: evenings add up, in whatever order faults end, and none is counted twice.
campaign_tally_test.py SOURCE_DIR"""
import json
import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "tools/campaign"))
from campaign import order  # noqa: E402
from tally import Outcome, Tally  # noqa: E402


def outcome(number):
    state = ("survived", "void", "lost")[number % 3]
    return Outcome(f"kind {number % 2}", state, "its bits" if state == "lost" else "", 0.5, 1.0, 1.25, 2)


def evening(file, numbers, seed=7):
    tally = Tally(file, seed, 1, "abc")
    for number in numbers:
        tally.finish(number, outcome(number))
    tally.store()
    return tally


def main():
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = pathlib.Path(folder) / "whole.json", pathlib.Path(folder) / "parts.json"
        evening(whole, range(12))
        first = evening(parts, (1, 0, 2, 4))  # 3 was under way when it ended
        assert first.next == 3, first.next
        assert evening(parts, (4, 3, 6, 5, 7, 8, 9, 10, 11)).next == 12
        one, two = (json.loads(file.read_text()) for file in (whole, parts))
        assert [(part["from"], part["to"]) for part in two.pop("evenings")] == [(0, 3), (3, 12)]
        one.pop("evenings")
        assert one == two, (one, two)
        assert one["total"] == {"tried": 8, "survived": 4, "void": 4, "lost": 4}, one["total"]
        assert "fault 2 of seed 7" in one["kinds"]["kind 0"]["lost"][0]
        assert one["unbilled_milliseconds_a_start"] == 125.0
        assert Tally(parts, 8, 1, "abc").next == 0  # another seed has faults of its own
        assert evening(parts, (0, 1), seed=8).total()["tried"] == 9

    kinds = {"open fails": 20, "killed": 3, "two ranks: send fails": 20}
    faults = {kind: [(f"{kind} {number}",) for number in range(count)] for kind, count in kinds.items()}
    chosen = order(faults, 100)
    assert sorted(chosen) == sorted((kind, *fault) for kind in faults for fault in faults[kind])
    assert [kind for kind, _ in chosen[:8]].count("two ranks: send fails") == 1  # they take long
    assert order(faults, 10) == chosen[:10]


if __name__ == "__main__":
    main()
