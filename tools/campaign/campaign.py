#!/usr/bin/env python3
"""Harms a small run in every way we know, lets it go on, and counts what was lost. See README.md beside this file."""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

from tally import Outcome, Tally
from trial import SLACK_SECONDS, SOURCE, Lost, Trial, Void, Workplace

ERRORS = {  # of the n-th call; + stands for every call from there on
    "open": ["EIO", "EACCES", "EMFILE", "ENOSPC"],
    "write": ["EIO", "ENOSPC", "short", "EINTR"],
    "fsync": ["EIO"],
    "rename": ["EIO", "ENOSPC"],
    "unlink": ["EIO", "EACCES"],
    "mmap": ["ENOMEM"],
    "memory": ["ENOMEM"],
    "thread": ["EAGAIN"],
    "fork": ["EAGAIN"],
}
KILLED_AT = ["open", "write", "fsync", "rename", "unlink"]
JUMPS = [3600, -3600, 86400, -86400, 378691200]


def came(mark):
    if not mark.exists():
        raise Void
    mark.unlink()


def at_call(place, trial, dice, word):
    """The n-th call of a kind fails, or the process is killed at it."""
    mark = place.folder / f"{trial.name}.mark"
    trial.expect_named(trial.start(place.fault(word, mark)))
    came(mark)
    trial.go_on()
    trial.check_result()
    return trial.check_bill()


def on_a_rank(place, trial, dice, word):
    """The same on one of two ranks; the first one keeps the account and writes."""
    mark = place.folder / f"{trial.name}.mark"
    rank = 0 if word.startswith(("write", "fsync", "rename")) else dice.randrange(2)
    trial.expect_named(trial.start(place.fault(word, mark, rank=rank)))
    came(mark)
    trial.go_on()
    trial.check_result()
    return trial.check_bill()


def killed(place, trial, dice, _):
    """SIGKILL at a random moment, up to three times."""
    codes = [trial.start(kill_after=dice.uniform(0, 1.1 * place.seconds)) for _ in range(dice.randint(1, 3))]
    if -signal.SIGKILL not in codes:  # each had done its work before
        raise Void
    trial.go_on()
    trial.check_result()
    return trial.check_bill()


def clock_and_kill(place, trial, dice, word):
    """The clock jumps, and some time afterwards the process is killed."""
    mark = place.folder / f"{trial.name}.mark"
    trial.start(place.fault(word, mark), kill_after=dice.uniform(0.3, 1.1) * place.seconds)
    came(mark)
    trial.go_on()
    trial.check_result()
    return trial.check_bill()


def killed_under_a_cap(place, trial, dice, _):
    """A budget of some runs' length, horizon at its end, killed again and again: it is spent and not passed."""
    cap = dice.uniform(4, 8) * place.seconds
    overrides = ("--schedule.horizon=budget", f"--budget.gpu_hours={cap:.3f}s", "--schedule.warmup_steps=0")
    codes = [trial.start(kill_after=dice.uniform(0, 1.1 * place.seconds), overrides=overrides)
             for _ in range(dice.randint(1, 4))]
    if -signal.SIGKILL not in codes:
        raise Void
    code = trial.start(overrides=overrides)
    if code not in (0, 84):
        raise Lost(f"exit code {code}: {trial.output[-400:]}")
    charged, report = trial.charged_seconds()
    metrics = place.run_folder(trial.name) / "metrics.jsonl"  # none where starting alone took it all
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    steps = [json.loads(line).get("timing", {}).get("step_seconds", 0) for line in lines]
    if charged > 1.005 * cap + max(steps, default=0) + SLACK_SECONDS[1]:
        raise Lost(f"charged {charged:.3f} s of a cap of {cap:.3f}")
    return trial.check_bill()


def damaged(place, trial, dice, what):
    """One file is torn or one of its bytes flipped; the run goes on, or says which file and goes on once it is whole."""
    trial.start(kill_after=dice.uniform(0.5, 1.1) * place.seconds)
    run = place.run_folder(trial.name)
    if what == "shard":
        files = [file for file in (place.folder / "shards").rglob("*") if file.is_file() and file.suffix == ".h5"]
    else:
        files = [file for file in run.rglob("*") if file.is_file() and file.stat().st_size > 0 and
                 ("checkpoints" in file.parts) == (what == "checkpoint")] if run.exists() else []
    if not files:
        raise Void
    file = dice.choice(sorted(files))
    whole = file.read_bytes()
    at = dice.randrange(len(whole))
    torn = dice.random() < 0.4
    file.write_bytes(whole[:at] if torn else whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1:])
    how = f"{'torn' if torn else 'flipped'} at {at} of {len(whole)} in {file.relative_to(place.folder)}"
    own = file.name in ("ledger.jsonl", "alive", "report.json")
    try:
        code = trial.start()
        trial.expect_named(code)
        if code != 0:
            if what == "shard" or "checkpoints" not in file.parts:
                if file.name not in trial.output and file.parent.name not in trial.output:
                    raise Lost(f"refused, but {file.name} is not named: {trial.output[-300:]}")
            file.write_bytes(whole)
            trial.go_on()
        elif what == "shard":
            file.write_bytes(whole)
        trial.check_result(metrics=file.name != "metrics.jsonl")
        return 0.0 if own else trial.check_bill()
    except Lost as lost:
        raise Lost(f"{how}: {lost}") from None
    finally:
        if what == "shard":
            file.write_bytes(whole)


def plans(place, seed):
    """Every fault of the campaign by kind: (what is done, its word, ranks), in an order that the seed gives each kind."""
    kinds = collections.defaultdict(list)
    for kind, errors in ERRORS.items():
        for number in range(1, place.calls[kind] + 1):
            for error in errors:
                kinds[f"{kind} fails"].append((at_call, f"{kind}:{number}:{error}", 1))
    for kind in KILLED_AT:
        for number in range(1, place.calls[kind] + 1):
            for what in ("kill", "killed"):
                kinds[f"killed at {kind}"].append((at_call, f"{kind}:{number}:{what}", 1))
    for number in range(1, place.calls["write"] + 1):
        kinds["disk full"].append((at_call, f"write:{number}:ENOSPC+", 1))
    for number in range(1, place.calls["clock"] + 1):
        for jump in JUMPS:
            kinds["clock jumps"].append((at_call, f"clock:{number}:{jump}", 1))
            kinds["clock jumps, then killed"].append((clock_and_kill, f"clock:{number}:{jump}", 1))
    for number in range(1, 190):
        for kind in ("send", "receive"):
            for what in ("EIO", "kill"):
                kinds[f"two ranks: {kind} fails" if what == "EIO" else f"two ranks: killed at {kind}"].append(
                    (on_a_rank, f"{kind}:{number}:{what}", 2))
    for kind in ("write", "fsync", "rename", "open"):
        for number in range(1, place.calls[kind] + 1):
            kinds["two ranks: the disk fails"].append((on_a_rank, f"{kind}:{number}:EIO", 2))
    for number in range(1, place.calls["write"] + 1):
        kinds["two ranks: the disk is full"].append((on_a_rank, f"write:{number}:ENOSPC+", 2))
    for number in range(1, place.calls["memory"] + 1):
        kinds["two ranks: memory fails"].append((on_a_rank, f"memory:{number}:ENOMEM", 2))
    for _ in range(4000):
        kinds["killed at a random moment"].append((killed, "", 1))
        kinds["killed under a cap"].append((killed_under_a_cap, "", 1))
        for what in ("run", "checkpoint", "shard"):
            kinds[f"bytes of a {what} damaged"].append((damaged, what, 1))
    for kind, faults in kinds.items():
        random.Random(f"{seed}/{kind}").shuffle(faults)
    return kinds


def order(kinds, most):
    """As many of each kind as there are, in turns, `most` in all; of those on two ranks, which take long, a fifth."""
    waiting = {kind: list(faults) for kind, faults in kinds.items()}
    chosen = []
    turn = 0
    while waiting and len(chosen) < most:
        turn += 1
        for kind in list(waiting):
            if "two ranks" in kind and turn % 5 != 1 and any("two ranks" not in other for other in waiting):
                continue
            chosen.append((kind, *waiting[kind].pop()))
            if not waiting[kind]:
                del waiting[kind]
    return chosen[:most]


def tried(place, fault, number, seed):
    """The outcome of one fault."""
    kind, body, word, ranks = fault
    trial = Trial(place, f"t{number}", ranks)
    outcome = Outcome(kind, "survived")
    began = time.monotonic()
    try:
        outcome.charged = body(place, trial, random.Random(f"{seed}/{number}"), word)
        outcome.wall, outcome.starts = trial.wall_seconds, trial.attempts * trial.ranks
    except Void:
        outcome.state = "void"
    except Lost as lost:
        outcome.state, outcome.lost = "lost", f"{word or body.__name__}: {lost}"
        print(f"LOST  {kind}: fault {number} of seed {seed}: {outcome.lost}", flush=True)
    trial.clean()
    outcome.seconds = time.monotonic() - began
    return outcome


def try_again(tally, place, faults, seed):
    """What the seed lost, once more and alone, after what lost it was mended."""
    for kind, text, number in list(tally.lost()):
        same = [fault for fault in faults if fault[0] == kind and text.startswith(f"{fault[2] or fault[1].__name__}: ")]
        outcome = tried(place, same[0], number, seed) if len(same) == 1 else None
        print(f"fault {number}, {kind}: {outcome.state if outcome else 'this program has no such fault'}", flush=True)
        if outcome and outcome.state == "survived":
            tally.settle(kind, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build/shoestring")
    parser.add_argument("--shim", type=pathlib.Path, default=SOURCE / "build/shoestring_faults.so")
    parser.add_argument("--faults", type=int, default=10000, help="how many of the seed's, all kinds in turns (10000)")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, whatever is left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="workers (the cores)")
    parser.add_argument("--kind", action="append", help="only kinds that hold this text; may be given again")
    parser.add_argument("--begin", type=int, default=0, help="number of the first fault: to see one that was lost again")
    parser.add_argument("--folder", type=pathlib.Path, help="where runs are made (/dev/shm: in memory)")
    parser.add_argument("--result", type=pathlib.Path, help="add the table to this JSON; go on behind the seed's last fault")
    parser.add_argument("--again", action="store_true", help="only what is lost in --result's file, once more")
    arguments = parser.parse_args()
    if arguments.result and (arguments.kind or arguments.begin):
        sys.exit("--result counts all faults of a seed in their order: leave out --kind and --begin, or --result")
    if arguments.again and not arguments.result:
        sys.exit("--again tries what a file of --result says is lost")
    folder = (arguments.folder or pathlib.Path("/dev/shm")) / f"shoestring_campaign_{os.getpid()}"
    places = [Workplace(arguments.program.resolve(), arguments.shim.resolve(), folder / str(worker))
              for worker in range(arguments.jobs)]
    kinds = plans(places[0], arguments.seed)
    if arguments.kind:
        kinds = {kind: faults for kind, faults in kinds.items() if any(text in kind for text in arguments.kind)}
    faults = order(kinds, arguments.faults)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=SOURCE, capture_output=True, text=True).stdout
    tally = Tally(arguments.result, arguments.seed, arguments.jobs, commit.strip(), arguments.begin)
    if arguments.again:
        try_again(tally, places[0], faults, arguments.seed)
    numbers = iter(() if arguments.again else range(tally.next, len(faults)))
    stop = threading.Event()
    for request in (signal.SIGINT, signal.SIGTERM):  # what is under way is finished and counted
        signal.signal(request, lambda *_: stop.set())
    deadline = time.monotonic() + 60 * arguments.minutes

    def work(place):
        try:
            while not stop.is_set() and time.monotonic() < deadline:
                with tally.lock:
                    number = next(numbers, None)
                if number is None:
                    return
                tally.finish(number, tried(place, faults[number], number, arguments.seed))
        except BaseException:  # a mistake of ours: nobody counts on behind it
            stop.set()
            raise

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for share in [pool.submit(work, place) for place in places]:
            share.result()
    shutil.rmtree(folder, ignore_errors=True)
    tally.store()
    print(tally.text())
    lost = tally.total()["lost"] if arguments.again else tally.lost_now
    sys.exit(1 if lost or not tally.total()["tried"] else 0)


if __name__ == "__main__":
    main()
