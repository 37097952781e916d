#!/usr/bin/env python3
"""Runs the fuzz targets of the preset `fuzz`, each for some seconds, and says how many inputs each read.

run.py SECONDS [TARGET...] [--result FILE]: adds to the figures of FILE. What brings a target down is left in
build-fuzz/findings; put it into seeds/TARGET once it is mended. Exit code 1 when there is such a thing."""
import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build-fuzz"
LONGEST_BYTES = 65536  # of an input
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def fuzz(target, seconds):
    """How many inputs were read, and the log of what was found (empty: nothing)."""
    corpus, findings = BUILD / "corpus" / target, BUILD / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    words = [BUILD / f"fuzz_{target}", corpus, HERE / "seeds" / target, f"-max_total_time={seconds}", "-timeout=20",
             "-rss_limit_mb=1024", f"-max_len={LONGEST_BYTES}", "-print_final_stats=1", "-verbosity=1",
             f"-artifact_prefix={findings}/{target}-"]
    dictionary = HERE / "dictionaries" / f"{target}.dict"
    if dictionary.exists():
        words.append(f"-dict={dictionary}")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, errors="replace")
    runs = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    return int(runs[1]) if runs else 0, "" if done.returncode == 0 else done.stderr[-4000:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int)
    parser.add_argument("targets", nargs="*", help="all of them, unless named")
    parser.add_argument("--result", type=pathlib.Path)
    arguments = parser.parse_args()
    targets = arguments.targets or sorted(file.name.removesuffix("_fuzz.cpp") for file in HERE.glob("*_fuzz.cpp"))
    found = 0
    total = json.loads(arguments.result.read_text()) if arguments.result and arguments.result.exists() else {"targets": {}}
    for target in targets:
        runs, log = fuzz(target, arguments.seconds)
        print(f"{target:<16} {runs:>12} inputs in {arguments.seconds} s{'' if not log else '  FOUND SOMETHING'}", flush=True)
        if log:
            found += 1
            print(log)
        row = total["targets"].setdefault(target, {"executions": 0, "seconds": 0})
        row["executions"] += runs
        row["seconds"] += arguments.seconds
        if runs == 0 and not log:
            sys.exit(f"{target} read nothing")
    if arguments.result:
        total["executions"] = sum(row["executions"] for row in total["targets"].values())
        total["date"] = datetime.date.today().isoformat()
        arguments.result.write_text(json.dumps(total, indent=2, sort_keys=True) + "\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
