"""A small run that is harmed, goes on, and is held against one that nobody harmed. Used by campaign.py."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
PATIENCE_SECONDS = 120  # a run takes a fraction of a second: what takes longer hangs
# Of a start, what the kernel and we need to begin it and to see its end, on a machine that is loaded; under mpirun also
# what comes before the ledger is open, should the start die there, and what mpirun needs to end all ranks.
SLACK_SECONDS = {1: 0.15, 2: 0.6}

# Exit codes that a harmed start may end with: they name a cause outside the program. 70 is a bug, 1 and signals say nothing.
NAMED = {65, 66, 74, 75, 78, 80, 82}


class Lost(Exception):
    """What the run owed and did not give."""


class Void(Exception):
    """The fault did not come: nothing was tried."""


def run_delay():
    """Seconds for which this thread could run and had no core (0 where the kernel does not count them)."""
    try:
        return int(pathlib.Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def starved_seconds():
    """Seconds for which somebody on this machine waited for a core (0 where the kernel does not count them)."""
    try:
        return int(pathlib.Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1e6
    except OSError:
        return 0.0


class Workplace:
    """A folder with shards and a recipe of its own, and what an undisturbed run gives."""

    def __init__(self, program, shim, folder):
        self.program, self.shim, self.folder = program, shim, folder
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "text").mkdir(parents=True)
        for number in range(40):
            lines = (f"int value_{number * 131 + line} = compute({line * number});\n" for line in range(30))
            (folder / "text" / f"{number}.c").write_text("".join(lines))
        (folder / "hardware").mkdir()
        shutil.copy(SOURCE / "recipes/hardware/cpu.hardware", folder / "hardware")
        shutil.copy(HERE / "tiny.recipe", folder)
        self.check("data", "build", "text", "--out", "shards", "--tokenizer", "bytes", "--hold-out", "0.1", "--threads", "1")
        self.check(*self.train("undisturbed"))
        self.expected = self.result("undisturbed")
        mark = folder / "counts"
        self.check(*self.train("counted"), environment=self.fault(None, mark))
        self.calls = dict((kind, int(count)) for kind, count in (line.split() for line in mark.read_text().splitlines()))
        began = time.monotonic()
        self.check(*self.train("timed"))
        self.seconds = time.monotonic() - began

    def check(self, *words, environment=None):
        done = subprocess.run([self.program, *words], cwd=self.folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

    def train(self, name, *overrides):
        return ["train", "tiny.recipe", f"--run.name={name}", *overrides]

    def run_folder(self, name):
        return self.folder / "runs" / name

    def fault(self, word, mark, rank=None):
        """The environment in which the preloaded library does what `word` says."""
        mark.unlink(missing_ok=True)
        environment = dict(os.environ, LD_PRELOAD=str(self.shim), SHOESTRING_FAULT_UNDER=str(self.folder),
                           SHOESTRING_FAULT_MARK=str(mark))
        environment.pop("SHOESTRING_FAULT", None)
        if word is not None:
            environment["SHOESTRING_FAULT"] = word
        if rank is not None:
            environment["SHOESTRING_FAULT_RANK"] = str(rank)
        return environment

    def result(self, name, metrics=True):
        """What must come again bit for bit."""
        checkpoints = sorted((self.run_folder(name) / "checkpoints").glob("step_*"))
        if not checkpoints:
            raise Lost("no checkpoint is left at the end")
        newest = checkpoints[-1]
        result = {"checkpoint": newest.name}
        for file in ("model.safetensors", "training/optimizer.safetensors"):
            result[file] = (newest / file).read_bytes()
        if metrics:
            lines = [json.loads(line) for line in (self.run_folder(name) / "metrics.jsonl").read_text().splitlines()]
            for line in lines:
                line.pop("timing", None)
            result["metrics"] = lines
        return result


def kill_group(process):
    """SIGKILL to all that `process` started, if it has not ended by now."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


class Trial:
    """One fault on one run: the harmed start, as many starts as it takes, and what is looked at afterwards."""

    def __init__(self, place, name, ranks=1):
        self.place, self.name, self.ranks = place, name, ranks
        self.wall_seconds = 0.0
        self.late_seconds = 0.0  # for which the stop-watch waited for a core
        self.starved_seconds = 0.0  # for which anybody did
        self.attempts = 0
        self.output = self.said = ""  # by the last start, by all of them

    def words(self, environment, overrides):
        program = [str(self.place.program), *self.place.train(self.name, *overrides)]
        if self.ranks == 1:
            return program
        harm = [f"{key}={environment[key]}" for key in environment if key == "LD_PRELOAD" or key.startswith("SHOESTRING_FAULT")]
        clock = (f"trap : TERM; clock={self.name}.clock.$OMPI_COMM_WORLD_RANK; date +%s.%N >$clock; "
                 'env "$@"; code=$?; date +%s.%N >>$clock; exit $code')
        return ["mpirun", "-n", str(self.ranks), "--oversubscribe", "--bind-to", "none", "sh", "-c", clock, "sh", *harm,
                *program]

    def start(self, environment=None, kill_after=None, overrides=()):
        """One start of the program; the exit code, negative where a signal ended it."""
        words = self.words(environment or {}, overrides)
        base = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        if self.ranks > 1:  # two mpirun at once share a folder by host and user, which the first to end takes away
            base["OMPI_MCA_orte_tmpdir_base"] = str(self.place.folder.parent / "mpi" / self.place.folder.name)
        began, delay, starved = time.time(), run_delay(), starved_seconds()
        process = subprocess.Popen(words, cwd=self.place.folder, env=base if self.ranks > 1 else environment or base,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        if kill_after is not None:
            threading.Timer(kill_after, kill_group, [process]).start()
        while True:
            try:
                self.output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode(errors="replace")
                break
            except subprocess.TimeoutExpired:
                took = time.time() - began
                others = starved_seconds() - starved  # had the cores
                if took - others > PATIENCE_SECONDS / 2 or took > 10 * PATIENCE_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    raise Lost(f"hangs for {took:.0f} s") from None
        self.said += self.output
        if "nothing is left to train" not in self.output:  # such a start is no attempt, and costs nothing
            ended = time.time()
            self.wall_seconds += self.ranks * (ended - began if self.ranks == 1 else self.seconds_of_leader(began, ended))
            self.late_seconds += self.ranks * (run_delay() - delay)
            self.starved_seconds += self.ranks * (starved_seconds() - starved)
            self.attempts += 1
        return process.returncode

    def seconds_of_leader(self, began, ended):
        """By a stop-watch around the rank that keeps the account; until all were gone where that was killed too."""
        file = self.place.folder / f"{self.name}.clock.0"
        stamps = [float(stamp) for stamp in file.read_text().split()] if file.exists() else [began]
        file.unlink(missing_ok=True)
        return (stamps[1] if len(stamps) > 1 else ended) - stamps[0]

    def expect_named(self, code):
        """A harmed start ended well, or by a kill of ours, or it says why in words."""
        if code in (0, -signal.SIGKILL) or (self.ranks > 1 and code == 137):
            return
        if code not in NAMED:
            raise Lost(f"exit code {code}: {self.output[-400:]}")
        if "shoestring: " not in self.output and "ends the run with code" not in self.output:  # one, or one of several
            raise Lost(f"exit code {code} without a word: {self.output[-400:]}")

    def go_on(self, overrides=()):
        """The same command again, until the run is done."""
        code = self.start(overrides=overrides)
        if code != 0:
            raise Lost(f"cannot go on, exit code {code}: {self.output[-400:]}")

    def check_result(self, metrics=True):
        result = self.place.result(self.name, metrics)
        expected = self.place.expected
        if "metrics.jsonl: cannot write" in self.said:  # a line that the disk refused, and the run said so
            expected = dict(expected, metrics=[line for line in expected["metrics"] if line in result.get("metrics", [])])
        for key, value in result.items():
            if value != expected[key]:
                raise Lost(f"{key} is not that of an undisturbed run")

    def charged_seconds(self):
        words = [self.place.program, "report", f"runs/{self.name}", "--json"]
        done = subprocess.run(words, cwd=self.place.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise Lost(f"no report: exit code {done.returncode}: {done.stderr[-400:]}")
        report = json.loads(done.stdout)
        return 3600 * sum(report["categories"].values()), report

    def check_bill(self):
        """The seconds charged; 0 where they cannot be judged, as the ends of processes are seen late on a busy machine."""
        charged, report = self.charged_seconds()
        spent = 3600 * report["budget"]["spent_gpu_hours"]
        if abs(charged - spent) > 1e-6 * max(1.0, spent):
            raise Lost(f"categories sum to {charged} s, spent are {spent}")
        # A process is billed from when the kernel made it until it was gone; we see it a little longer, and the longer the
        # machine has nobody to run the stop-watch.
        unseen = SLACK_SECONDS[self.ranks] * self.attempts * self.ranks + self.late_seconds
        missing = self.wall_seconds - charged
        beyond = max(missing - 0.01 * self.wall_seconds - unseen, -0.01 * self.wall_seconds - 0.02 - missing)
        if beyond > self.starved_seconds:
            raise Lost(f"billed {charged:.3f} s of {self.wall_seconds:.3f} in {self.attempts} starts")
        return charged if beyond <= 0 else 0.0

    def clean(self):
        shutil.rmtree(self.place.run_folder(self.name), ignore_errors=True)
