#!/usr/bin/env python3
"""Harms a small run in every way we know, lets it go on, and counts what was lost. See README.md beside this file."""
import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import random
import shutil
import sys
import time

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
    for _ in range(dice.randint(1, 3)):
        trial.start(kill_after=dice.uniform(0, 1.1 * place.seconds))
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
    for _ in range(dice.randint(1, 4)):
        trial.start(kill_after=dice.uniform(0, 1.1 * place.seconds), overrides=overrides)
    code = trial.start(overrides=overrides)
    if code not in (0, 84):
        raise Lost(f"exit code {code}: {trial.output[-400:]}")
    charged, report = trial.charged_seconds()
    lines = (place.run_folder(trial.name) / "metrics.jsonl").read_text().splitlines()
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


def plans(place, dice):
    """Every fault of the campaign by kind: (what is done, its word, ranks), in random order."""
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
    for _ in range(4000):
        kinds["killed at a random moment"].append((killed, "", 1))
        kinds["killed under a cap"].append((killed_under_a_cap, "", 1))
        for what in ("run", "checkpoint", "shard"):
            kinds[f"bytes of a {what} damaged"].append((damaged, what, 1))
    for kind in kinds.values():
        dice.shuffle(kind)
    return kinds


def order(kinds, dice, most):
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


def work(program, shim, folder, jobs, seed, worker, deadline, say):
    """One worker's share, one fault after another, until `deadline`."""
    place = Workplace(program, shim, folder)
    rows = new_rows()
    bill = collections.Counter()
    for number, (kind, body, word, ranks) in enumerate(jobs):
        if time.monotonic() > deadline:
            break
        trial = Trial(place, f"t{number}", ranks)
        row = rows[kind]
        began = time.monotonic()
        try:
            charged = body(place, trial, random.Random(f"{seed}/{worker}/{number}"), word)
            row["tried"] += 1
            row["survived"] += 1
            if charged:
                bill.update(charged=charged, wall=trial.wall_seconds, starts=trial.attempts * trial.ranks)
        except Void:
            row["void"] += 1
        except Lost as lost:
            row["tried"] += 1
            row["lost"].append(f"{word or body.__name__} (worker {worker}, number {number}): {lost}")
            say(f"LOST  {kind}: {row['lost'][-1]}")
        trial.clean()
        row["seconds"] += time.monotonic() - began
    shutil.rmtree(folder, ignore_errors=True)
    return {kind: dict(row) for kind, row in rows.items()}, bill


def new_rows():
    return collections.defaultdict(lambda: {"tried": 0, "survived": 0, "void": 0, "seconds": 0.0, "lost": []})


def table(rows):
    lines = [f"{'fault':<34} {'tried':>7} {'survived':>9} {'lost':>5} {'void':>5} {'s each':>7}"]
    total = collections.Counter()
    for kind in sorted(rows):
        row = rows[kind]
        row["seconds"] = round(row["seconds"], 1)
        lines.append(f"{kind:<34} {row['tried']:>7} {row['survived']:>9} {len(row['lost']):>5} {row['void']:>5}"
                     f" {row['seconds'] / max(1, row['tried'] + row['void']):>7.2f}")
        total.update(tried=row["tried"], survived=row["survived"], lost=len(row["lost"]), void=row["void"])
    lines.append(f"{'all':<34} {total['tried']:>7} {total['survived']:>9} {total['lost']:>5} {total['void']:>5}")
    return "\n".join(lines), total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build/shoestring")
    parser.add_argument("--shim", type=pathlib.Path, default=SOURCE / "build/shoestring_faults.so")
    parser.add_argument("--faults", type=int, default=10000, help="how many, all kinds in turns (10000)")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, whatever is left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="workers (the cores)")
    parser.add_argument("--kind", action="append", help="only kinds that hold this text; may be given again")
    parser.add_argument("--folder", type=pathlib.Path, help="where runs are made (/dev/shm: in memory)")
    parser.add_argument("--result", type=pathlib.Path, help="write the table as JSON")
    arguments = parser.parse_args()
    folder = (arguments.folder or pathlib.Path("/dev/shm")) / f"shoestring_campaign_{os.getpid()}"
    program, shim = arguments.program.resolve(), arguments.shim.resolve()
    began = time.monotonic()
    dice = random.Random(arguments.seed)
    kinds = plans(Workplace(program, shim, folder / "plans"), dice)
    if arguments.kind:
        kinds = {kind: faults for kind, faults in kinds.items() if any(text in kind for text in arguments.kind)}
    jobs = order(kinds, dice, arguments.faults)
    deadline = began + 60 * arguments.minutes
    say = lambda text: print(text, flush=True)
    rows = new_rows()
    bill = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        shares = [pool.submit(work, program, shim, folder / str(worker), jobs[worker::arguments.jobs], arguments.seed,
                              worker, deadline, say) for worker in range(arguments.jobs)]
        for share in shares:
            found, part = share.result()
            bill.update(part)
            for kind, row in found.items():
                for key, value in row.items():
                    rows[kind][key] += value
    shutil.rmtree(folder, ignore_errors=True)
    text, total = table(rows)
    print(text)
    minutes = (time.monotonic() - began) / 60
    unseen = 1000 * (bill["wall"] - bill["charged"]) / max(1, bill["starts"])
    print(f"billed {bill['charged']:.1f} s of {bill['wall']:.1f} by an outside stop-watch, {unseen:.0f} ms less a start; "
          f"{minutes:.1f} minutes, seed {arguments.seed}")
    if arguments.result:
        arguments.result.write_text(json.dumps({
            "date": datetime.date.today().isoformat(), "seed": arguments.seed, "jobs": arguments.jobs,
            "asked": arguments.faults, "minutes": round(minutes, 1),
            "machine": f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}, Linux {platform.release()}",
            "total": dict(total), "billed_seconds": round(bill["charged"], 1), "stopwatch_seconds": round(bill["wall"], 1),
            "starts": bill["starts"], "unbilled_milliseconds_a_start": round(unseen, 1),
            "kinds": {kind: rows[kind] for kind in sorted(rows)}}, indent=2) + "\n")
    sys.exit(1 if total["lost"] or not total["tried"] else 0)


if __name__ == "__main__":
    main()
