#!/usr/bin/env python3
"""How well `plan` ranks layouts: fourteen of one recipe on this machine, each foretold from a hardware file and then
measured by steps on its ranks; Kendall's tau between the two.

    tools/bench/layout_ranking.py SHARDS OUT.json [--seconds 12]

SHARDS: a folder that `data build` made, as shards/headers of the demo. The hardware file is made first, by
`bench --calibrate` on two ranks of one thread each. Nothing else should run meanwhile.
"""
import argparse
import datetime
import itertools
import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "shoestring"

# Ranks, what the planner is asked, what the recipe says, sequences of a micro-batch; sixteen sequences a step in all.
LAYOUTS = [
    (1, "pipeline=1", [], 1),
    (1, "pipeline=1", [], 4),
    (2, "pipeline=1", [], 1),
    (2, "pipeline=1", [], 4),
    (2, "pipeline=1 expert=2", ["--parallel.expert=2"], 1),
    (2, "pipeline=1 expert=2", ["--parallel.expert=2"], 4),
    (2, "pipeline=2 schedule=1f1b", ["--parallel.pipeline=2", "--parallel.schedule=1f1b"], 1),
    (2, "pipeline=2 schedule=1f1b", ["--parallel.pipeline=2", "--parallel.schedule=1f1b"], 4),
    (2, "pipeline=2 schedule=1f1b", ["--parallel.pipeline=2", "--parallel.schedule=1f1b"], 8),
    (2, "pipeline=2 schedule=interleaved chunks=2", ["--parallel.pipeline=2", "--parallel.schedule=interleaved"], 4),
    (2, "pipeline=2 schedule=zb_h1", ["--parallel.pipeline=2", "--parallel.schedule=zb_h1"], 1),
    (2, "pipeline=2 schedule=zb_h1", ["--parallel.pipeline=2", "--parallel.schedule=zb_h1"], 8),
    (2, "pipeline=2 schedule=zb_v", ["--parallel.pipeline=2", "--parallel.schedule=zb_v"], 4),
    (2, "pipeline=2 schedule=dualpipev", ["--parallel.pipeline=2", "--parallel.schedule=dualpipev"], 4),
]


def shoestring(ranks, arguments):
    command = [str(PROGRAM), *map(str, arguments)]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def kendall_tau(pairs):
    """Tau-a of (foretold, measured)."""
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in itertools.combinations(pairs, 2)]
    return sum((s > 0) - (s < 0) for s in signs) / len(signs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=12, help="of steps, for each layout")
    given = parser.parse_args()
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        os.environ.setdefault(name, "1")
    shards = pathlib.Path(given.shards).resolve()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "hardware").mkdir()
        recipe = folder / "tiny_moe.recipe"
        recipe.write_text((ROOT / "recipes" / "tiny_moe.recipe").read_text())
        print(shoestring(2, ["bench", "--threads", 1, "--calibrate", folder / "hardware" / "here.hardware"]))
        for number, (ranks, words, overrides, micro_batch) in enumerate(LAYOUTS):
            steps = 1000
            arguments = [recipe, f"--run.directory={folder / str(number)}", f"--data.train={shards}/train",
                         f"--data.validation={shards}/validation", "--budget.hardware=here", "--budget.gpu_hours=10",
                         "--run.threads=1", "--schedule.horizon=steps", f"--phase.pretrain.steps={steps}",
                         "--phase.pretrain.global_batch=16", f"--phase.pretrain.micro_batch={micro_batch}",
                         "--checkpoint.every_minutes=100000", *overrides]
            paper = json.loads(shoestring(1, ["plan", *arguments, "--devices", ranks, "--layout", words, "--json"]))
            foretold = sum(paper["phases"][0]["step_seconds"].values())
            shoestring(ranks, ["plan", *arguments, "--measure", given.seconds])
            plan = json.loads((folder / str(number) / "plan.json").read_text())
            measured = plan["phases"][0]["gpu_hours"] * 3600 / ranks / steps
            rows.append({"ranks": ranks, "layout": words, "micro_batch": micro_batch, "foretold_seconds": foretold,
                         "measured_seconds": measured})
            print(json.dumps(rows[-1]), flush=True)
        hardware = (folder / "hardware" / "here.hardware").read_text()
    pairs = [(row["foretold_seconds"], row["measured_seconds"]) for row in rows]
    two = [pair for pair, row in zip(pairs, rows) if row["ranks"] == 2]
    pathlib.Path(given.out).write_text(json.dumps({
        "schema": "shoestring.bench_log/1",
        "date": datetime.date.today().isoformat(),
        "command": f"tools/bench/layout_ranking.py SHARDS OUT --seconds {given.seconds:g}",
        "meaning": "seconds of a step of tiny_moe, sixteen sequences of 512: foretold from a calibrated hardware file, "
                   "and measured; goal: tau 0.85",
        "tau": kendall_tau(pairs),
        "tau_of_two_ranks": kendall_tau(two),
        "hardware": hardware,
        "rows": rows,
    }, indent=1) + "\n")
    print(f"Kendall's tau {kendall_tau(pairs):.3f} over {len(pairs)} layouts, {kendall_tau(two):.3f} over the "
          f"{len(two)} of two ranks")


if __name__ == "__main__":
    main()
