#!/usr/bin/env python3
"""How runs with a budget for a horizon land when they are disturbed: their speed goes up and down by other work on the
machine, and each is killed three times and started again. Beside each, a run that knew its number of steps beforehand.

    tools/bench/landing_runs.py SHARDS OUT.json [--runs 10] [--first 1] [--seconds 75] [--threads 0]

SHARDS: a folder that `data build` made, as shards/headers of the demo.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "shoestring"
DECAY = 0.3


def recipe(shards, run, seed, threads, *horizon):
    return [str(PROGRAM), "train", str(ROOT / "recipes" / "tiny_dense.recipe"), f"--run.directory={run}",
            f"--data.train={shards}/train", f"--data.validation={shards}/validation", f"--run.seed={seed}",
            f"--run.threads={threads}", "--model.layers=2", "--model.hidden=128", "--model.heads=2", "--model.kv_heads=1",
            "--model.feed_forward=384", "--precision.policy=fp32", "--phase.pretrain.sequence=128",
            "--phase.pretrain.micro_batch=4", "--phase.pretrain.global_batch=4", "--schedule.warmup_steps=20",
            f"--schedule.decay_fraction={DECAY}", "--checkpoint.every_minutes=0.1", "--evaluation.tokens=50K", *horizon]


class Disturber:
    """Another process works and rests for random stretches on one of the cores."""

    def __init__(self, randomness):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, args=(randomness,))
        self.thread.start()

    def work(self, randomness):
        while not self.over.is_set():
            busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
            self.over.wait(randomness.uniform(1, 6))
            busy.kill()
            busy.wait()
            self.over.wait(randomness.uniform(1, 6))

    def end(self):
        self.over.set()
        self.thread.join()


def report_of(run):
    subprocess.run([str(PROGRAM), "report", str(run)], check=True, stdout=subprocess.DEVNULL)
    return json.loads((run / "report.json").read_text())


def last_lines(run):
    """Of the last step, and of the last evaluation."""
    step = evaluation = None
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "evaluation" in entry:
            evaluation = entry["evaluation"]
        else:
            step = entry
    return step, evaluation


def one(shards, folder, seed, seconds, threads):
    randomness = random.Random(seed)
    disturbed = folder / "disturbed"
    disturber = Disturber(randomness)
    kills = 0
    starts = 0
    try:
        while True:
            starts += 1
            process = subprocess.Popen(recipe(shards, disturbed, seed, threads, f"--budget.gpu_hours={seconds / 3600}"),
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if kills < 3:
                time.sleep(seconds * randomness.uniform(0.12, 0.25))
                process.send_signal(signal.SIGKILL)
                kills += 1
            output, _ = process.communicate()
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"ended with {process.returncode}:\n{output[-2000:]}")
    finally:
        disturber.end()
    report = report_of(disturbed)
    step, evaluation = last_lines(disturbed)
    peak = 2e-3
    knew = folder / "knew"
    done = subprocess.run(recipe(shards, knew, seed, threads, "--budget.gpu_hours=10", "--schedule.horizon=steps",
                                 f"--phase.pretrain.steps={step['step']}"), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the run that knew its steps ended with {done.returncode}:\n{done.stdout[-2000:]}")
    _, reference = last_lines(knew)
    whole = evaluation["tokens"] == reference["tokens"]
    return {"seed": seed, "kills": kills, "starts": starts, "steps": step["step"],
            "share_of_cap": report["budget"]["spent_share"],
            "progress_at_last_step": 1 - DECAY * step["learning_rate"] / peak, "loss": evaluation["loss"],
            "loss_of_run_that_knew": reference["loss"],
            # An evaluation that was cut is of other text.
            "loss_off": evaluation["loss"] / reference["loss"] - 1 if whole else None,
            "evaluated_share": evaluation["tokens"] / reference["tokens"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="seed of the first")
    parser.add_argument("--seconds", type=float, default=75, help="the cap")
    parser.add_argument("--threads", type=int, default=0, help="of a run; 0: all cores")
    given = parser.parse_args()
    shards = pathlib.Path(given.shards).resolve()
    rows = []
    for seed in range(given.first, given.first + given.runs):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one(shards, pathlib.Path(folder), seed, given.seconds, given.threads))
        print(json.dumps(rows[-1]), flush=True)
    pathlib.Path(given.out).write_text(json.dumps({
        "schema": "shoestring.bench_log/1",
        "date": datetime.date.today().isoformat(),
        "command": f"tools/bench/landing_runs.py SHARDS OUT --runs {given.runs} --first {given.first} "
                   f"--seconds {given.seconds:g} --threads {given.threads}",
        "meaning": "runs whose horizon is their budget, disturbed and killed three times; goals: the cap never passed, "
                   "97% of it used, progress 0.995 at the last step, loss within 0.3% of a run that knew its steps",
        "least_share_of_cap": min(row["share_of_cap"] for row in rows),
        "most_share_of_cap": max(row["share_of_cap"] for row in rows),
        "least_progress": min(row["progress_at_last_step"] for row in rows),
        "most_loss_off": max((row["loss_off"] for row in rows if row["loss_off"] is not None), default=None),
        "rows": rows,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
