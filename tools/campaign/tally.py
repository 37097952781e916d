"""What a campaign has found so far, in a file to which one evening after another adds. Used by campaign.py."""
import collections
import dataclasses
import datetime
import json
import os
import platform
import re
import threading
import time

STORE_SECONDS = 5  # at most so much is tried again after a campaign was killed


@dataclasses.dataclass
class Outcome:
    """What became of one fault. `lost` says what the run owed; a void one did not come."""

    kind: str
    state: str  # survived, lost, void
    lost: str = ""
    seconds: float = 0.0
    charged: float = 0.0  # seconds, 0: the bill was not judged
    wall: float = 0.0
    starts: int = 0


class Tally:
    """Counts faults by kind. Those of one seed are numbered; what is counted of them is all up to some number, so that the
    next evening goes on behind it: what was finished before its turn waits."""

    def __init__(self, file, seed, jobs, commit, begin=0):
        self.file, self.lock = file, threading.Lock()
        past = json.loads(file.read_text()) if file and file.exists() else {}
        self.kinds = past.get("kinds", {})
        self.bill = collections.Counter({key: past.get(key, 0) for key in ("bills", "billed_seconds", "stopwatch_seconds", "starts")})
        self.evenings = past.get("evenings", [])
        self.corrections = {key: past[key] for key in ["corrections"] if key in past}  # what a person entered
        begin = max((evening["to"] for evening in self.evenings if evening["seed"] == seed), default=begin)
        self.evening = {"date": datetime.date.today().isoformat(), "seed": seed, "from": begin, "to": begin, "minutes": 0.0,
                        "jobs": jobs, "commit": commit,
                        "machine": f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}, Linux {platform.release()}"}
        self.waiting = {}
        self.began = self.stored = time.monotonic()
        self.lost_now = 0

    @property
    def next(self):
        """The number of the first fault of the seed that is not counted."""
        return self.evening["to"]

    def finish(self, number, outcome):
        with self.lock:
            self.waiting[number] = outcome
            while self.next in self.waiting:
                self.count(self.waiting.pop(self.next))
                self.evening["to"] += 1
            if time.monotonic() - self.stored > STORE_SECONDS:
                self.store()

    def count(self, outcome):
        row = self.kinds.setdefault(outcome.kind, {"tried": 0, "survived": 0, "void": 0, "seconds": 0.0, "lost": []})
        row["tried"] += outcome.state != "void"
        if outcome.state == "lost":
            row["lost"].append(f"{outcome.lost} (fault {self.next} of seed {self.evening['seed']})")
            self.lost_now += 1
        else:
            row[outcome.state] += 1
        row["seconds"] = round(row["seconds"] + outcome.seconds, 1)
        if outcome.charged:
            self.bill.update(bills=1, billed_seconds=outcome.charged, stopwatch_seconds=outcome.wall, starts=outcome.starts)

    def lost(self):
        """(kind, what was written down, number) of all that this seed lost."""
        for kind, row in self.kinds.items():
            for text in row["lost"]:
                found = re.search(rf"\(fault (\d+) of seed {self.evening['seed']}\)$", text)
                if found:
                    yield kind, text, int(found.group(1))

    def settle(self, kind, text):
        """A fault that was lost has survived since: it counts so, and what was lost stays to be read."""
        row = self.kinds[kind]
        row["lost"].remove(text)
        row["survived"] += 1
        row.setdefault("lost_once", []).append(f"{text}, survived at {self.evening['commit']}")

    def total(self):
        total = {key: sum(row[key] for row in self.kinds.values()) for key in ("tried", "survived", "void")}
        total["lost"] = sum(len(row["lost"]) for row in self.kinds.values())
        return total

    def unbilled_milliseconds(self):
        return 1000 * (self.bill["stopwatch_seconds"] - self.bill["billed_seconds"]) / max(1, self.bill["starts"])

    def store(self):
        self.stored = time.monotonic()
        self.evening["minutes"] = round((self.stored - self.began) / 60, 1)
        if not self.file:
            return
        evenings = self.evenings + [self.evening] * (self.evening["to"] > self.evening["from"])
        whole = {"total": self.total(), "evenings": evenings, **self.corrections,
                 **{key: round(value, 3) for key, value in self.bill.items()},
                 "unbilled_milliseconds_a_start": round(self.unbilled_milliseconds(), 1),
                 "kinds": dict(sorted(self.kinds.items()))}
        partial = self.file.with_name(self.file.name + ".tmp")
        partial.write_text(json.dumps(whole, indent=2) + "\n")
        os.replace(partial, self.file)

    def text(self):
        lines = [f"{'fault':<34} {'tried':>7} {'survived':>9} {'lost':>5} {'void':>5} {'s each':>7}"]
        for kind, row in sorted(self.kinds.items()):
            lines.append(f"{kind:<34} {row['tried']:>7} {row['survived']:>9} {len(row['lost']):>5} {row['void']:>5}"
                         f" {row['seconds'] / max(1, row['tried'] + row['void']):>7.2f}")
        total = self.total()
        lines.append(f"{'all':<34} {total['tried']:>7} {total['survived']:>9} {total['lost']:>5} {total['void']:>5}")
        lines.append(f"{self.bill['bills']} bills judged: {self.bill['billed_seconds']:.1f} s of {self.bill['stopwatch_seconds']:.1f} by an outside "
                     f"stop-watch, {self.unbilled_milliseconds():.0f} ms less a start; seed {self.evening['seed']}, faults "
                     f"{self.evening['from']} to {self.next - 1} in {self.evening['minutes']:.1f} minutes")
        return "\n".join(lines)
