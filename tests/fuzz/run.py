#!/usr/bin/env python3
"""Runs the fuzz targets of the preset `fuzz`, each for some seconds, and says how many inputs each read.

run.py SECONDS [TARGET...] [--rounds N] [--until N] [--result FILE]: N rounds over all targets (0: until it is stopped or
all have read --until inputs; started again it goes on from the same corpus). After each target its figures are added to
those in FILE, in all and by day, machine and commit. What brings a target down is left in build-fuzz/findings; put it into
seeds/TARGET once it is mended. Exit code 1 when there is such a thing."""
import argparse
import concurrent.futures
import datetime
import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build-fuzz"
# Bytes of an input, by round in turns: most of what a parser does is met in short ones, of which more are read.
LONGEST = (256, 1024, 256, 4096, 256, 1024, 256, 65536)
LEAST_LONGEST = {"shard": 65536}  # HDF5 has no smaller ones
# Blocks that were freed are kept apart for a while, of which the small ones suffice; where a block was made is told by
# one frame. What is found is read again by the tests under the defaults.
# A reader's time is judged by `bounded`, in seconds of CPU; -timeout is for one that never comes back, on a core that may be
# somebody else's for minutes.
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=0:detect_stack_use_after_return=0:"
                               "quarantine_size_mb=4:malloc_context_size=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def fuzz(target, seconds, longest, seed):
    """How many inputs were read in how many seconds of CPU, and the log of what was found (empty: nothing)."""
    corpus, findings = BUILD / "corpus" / target, BUILD / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    words = [BUILD / f"fuzz_{target}", corpus, HERE / "seeds" / target, f"-max_total_time={seconds}", "-timeout=300",
             "-rss_limit_mb=1024", f"-max_len={max(longest, LEAST_LONGEST.get(target, 0))}", f"-seed={seed}",
             "-print_final_stats=1", "-print_funcs=0", "-reload=0", "-detect_leaks=0", "-entropic=0",
             f"-artifact_prefix={findings}/{target}-"]
    dictionary = HERE / "dictionaries" / f"{target}.dict"
    if dictionary.exists():
        words.append(f"-dict={dictionary}")
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    runs = re.search(r"stat::number_of_executed_units: *(\d+)", said)
    return int(runs[1]) if runs else 0, used.ru_utime + used.ru_stime, "" if status == 0 else said[-4000:]


def machine():
    """What ran it: cores, processor, kernel."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else platform.machine()}, Linux {platform.release()}"


def add(total, target, commit, seed, runs, seconds, found):
    """Counts a target's share of a round: of the target, and of the day on this machine."""
    key = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit}
    days = total.setdefault("days", [])
    day = next((day for day in days if key.items() <= day.items()), None)
    if day is None:
        days.append(day := dict(key, executions=0, cpu_seconds=0))
    row = total["targets"].setdefault(target, {"executions": 0, "cpu_seconds": 0})
    for counts in (row, day):
        counts["executions"] += runs
        counts["cpu_seconds"] += round(seconds)
    row["seed"] = seed
    row["findings"] = row.get("findings", 0) + found
    for count in ("executions", "cpu_seconds"):
        total[count] = sum(row[count] for row in total["targets"].values())
    total["date"] = key["date"]


def store(file, total):
    partial = file.with_name(file.name + ".tmp")
    partial.write_text(json.dumps(total, indent=2, sort_keys=True) + "\n")
    os.replace(partial, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=int)
    parser.add_argument("targets", nargs="*", help="all of them, unless named")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--until", type=int, help="end once all targets together have read so many, by FILE's count")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--seed", type=int, help="of the first round; the next one has the next (by the clock)")
    parser.add_argument("--result", type=pathlib.Path)
    arguments = parser.parse_args()
    targets = arguments.targets or sorted(file.name.removesuffix("_fuzz.cpp") for file in HERE.glob("*_fuzz.cpp"))
    seed = arguments.seed or int(time.time()) % 2**31
    total = {"targets": {}}
    if arguments.result and arguments.result.exists():
        total = json.loads(arguments.result.read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    found = 0
    for round_number in range(arguments.rounds) if arguments.rounds else itertools.count():
        round_seed = seed + round_number
        longest = LONGEST[round_seed % len(LONGEST)]
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            shares = {pool.submit(fuzz, target, arguments.seconds, longest, round_seed): target for target in targets}
            for share in concurrent.futures.as_completed(shares):
                target, (runs, seconds, log) = shares[share], share.result()
                print(f"{target:<16} {runs:>12} inputs of up to {longest} bytes in {seconds:.0f} s of CPU, seed {round_seed}"
                      f"{'' if not log else '  FOUND SOMETHING'}", flush=True)
                if log:
                    found += 1
                    print(log, flush=True)
                elif runs == 0:
                    sys.exit(f"{target} read nothing")
                add(total, target, commit, round_seed, runs, seconds, bool(log))
                if arguments.result:
                    store(arguments.result, total)
        if arguments.until and total["executions"] >= arguments.until:
            break
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
