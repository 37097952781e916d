#!/usr/bin/env python3
"""How well `plan --measure` foretells runs of this machine: ten runs of some seconds, each foretold by steps of its own.

    tools/bench/own_runs.py SHARDS OUT.json [--seconds 40]

SHARDS: a folder that `data build` made, as shards/headers of the demo. For each run a first look finds how many steps take
about --seconds; then the run is foretold (10 s of its steps) and trained, and its report says how far off the GPU-hours and
the memory (of one rank, held at its peak) were. Runs of several ranks are started with mpirun. Nothing else should run meanwhile.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "shoestring"

RUNS = [
    ("tiny_dense", 1, []),
    ("tiny_dense", 1, ["--precision.policy=fp32"]),
    ("tiny_dense", 1, ["--phase.pretrain.sequence=256", "--phase.pretrain.micro_batch=8"]),
    ("tiny_dense", 1, ["--optimizer.name=muon"]),
    ("tiny_moe", 1, []),
    ("tiny_moe", 1, ["--precision.policy=bf16"]),
    ("tiny_dense", 2, []),
    ("tiny_moe", 2, ["--phase.pretrain.micro_batch=2"]),
    ("tiny_dense", 2, ["--parallel.pipeline=2", "--parallel.schedule=1f1b"]),
    ("tiny_dense", 4, ["--phase.pretrain.micro_batch=2"]),
]


def held_bytes(process):
    """Resident now, without the pages of shards: those are the system's to take back."""
    held = 0
    shard = False
    try:
        for line in pathlib.Path(f"/proc/{process}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                shard = line.endswith(".h5")
            elif line.startswith("Rss:") and not shard:
                held += int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        pass
    return held


def shoestring(ranks, arguments):
    """What it printed, and the most bytes it held, as looked at twice a second: of one rank only."""
    command = [str(PROGRAM), *arguments]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    held = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            held = max(held, held_bytes(process.pid))
            time.sleep(0.5)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-2000:]}")
    return text, held if ranks == 1 else None


def wander(run, seconds):
    """How far the mean step of a stretch of `seconds` lies from the run's, in the mean: what no trial can foretell."""
    steps = [json.loads(line)["timing"]["step_seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()
             if "timing" in line]
    mean = sum(steps) / len(steps)
    length = max(1, round(seconds / mean))
    stretches = [sum(steps[i:i + length]) / length for i in range(len(steps) - length + 1)]
    return (sum((stretch / mean - 1) ** 2 for stretch in stretches) / len(stretches)) ** 0.5


def beside(foretold, came):
    return {"foretold": foretold, "came": came, "off": foretold / came - 1}


def one(recipe, ranks, extra, shards, seconds, folder):
    def arguments(steps, run):
        return [str(ROOT / "recipes" / f"{recipe}.recipe"), f"--run.directory={folder / run}",
                f"--data.train={shards}/train", f"--data.validation={shards}/validation", "--budget.gpu_hours=2",
                "--schedule.horizon=steps", "--schedule.warmup_steps=2", f"--phase.pretrain.steps={steps}", *extra]

    shoestring(ranks, ["plan", *arguments(1000, "look"), "--measure", "5"])
    plan = json.loads((folder / "look" / "plan.json").read_text())
    steps = max(4, round(1000 * seconds / (plan["gpu_hours"] * 3600 / ranks)))
    text, _ = shoestring(1, ["plan", *arguments(steps, "run")])
    planned_gib = float(re.search(r"^memory +([0-9.]+) GiB", text, re.MULTILINE).group(1))
    shoestring(ranks, ["plan", *arguments(steps, "run"), "--measure", "10"])
    _, resident = shoestring(ranks, ["train", *arguments(steps, "run")])
    shoestring(1, ["report", str(folder / "run")])
    report = json.loads((folder / "run" / "report.json").read_text())
    row = {"name": " ".join([recipe, f"{ranks} rank{'s' if ranks > 1 else ''}", *extra]), "steps": steps}
    for line in report["foretold"]:
        if line["what"] in ("GPU-hours", "GPU-hours: compute"):
            row[line["what"]] = beside(line["predicted"], line["actual"])
    row["wander"] = wander(folder / "run", 10)
    if resident is not None:
        row["memory, bytes"] = beside(planned_gib * 2**30, resident)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--runs", default="0123456789", help="digits: which of the ten")
    given = parser.parse_args()
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    shards = pathlib.Path(given.shards).resolve()
    rows = []
    for index in map(int, given.runs):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one(*RUNS[index], shards, given.seconds, pathlib.Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    off = sorted(abs(row["GPU-hours"]["off"]) for row in rows)
    pathlib.Path(given.out).write_text(json.dumps({
        "schema": "shoestring.bench_log/1",
        "date": datetime.date.today().isoformat(),
        "command": f"tools/bench/own_runs.py SHARDS OUT --seconds {given.seconds:g} --runs {given.runs}",
        "meaning": "GPU-hours of whole runs, foretold by plan --measure, over what the ledger was charged; goal: 3%. "
                   "wander: how far ten seconds of the run itself lay from its mean, root mean square",
        "median_off": off[len(off) // 2],
        "most_off": off[-1],
        "rows": rows,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
