#!/usr/bin/env python3
"""What the comparisons with other implementations came to, as one JSON document.

    table.py PYTHON NAME=JUNIT.xml... --out FILE

Each JUNIT.xml is what `ctest -L oracle --output-junit` wrote, NAME the libraries of which there is one version each
(transformers 4.57.6, tokenizers 0.22.2); PYTHON is the interpreter that ran them, asked for the versions of the rest. Of each comparison: what became of it, its
seconds, and the largest relative difference among those it calls its worst. Fails where one did not pass.
"""
import argparse
import datetime
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

PACKAGES = ["torch", "safetensors", "gguf", "lm_eval", "h5py", "ml_dtypes", "jinja2"]
VERSIONS = ("import importlib.metadata as m, json, sys\n"
            "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))")
DIFFERENCE = re.compile(r"\d\.\d+e[-+]\d+")


def largest(said):
    """Of lines that name a worst difference; None: they name none."""
    found = [float(value) for line in said.splitlines() if "worst" in line for value in DIFFERENCE.findall(line)]
    return max(found, default=None)


def outcomes(path):
    """By comparison, in the order in which they ran."""
    results = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        outcome = {"run": "passed", "notrun": "skipped"}.get(case.get("status"), "failed")
        results[case.get("name").removeprefix("oracle.")] = {
            "outcome": outcome, "seconds": round(float(case.get("time"))),
            "largest_relative_difference": largest(case.findtext("system-out") or "")}
    return results


def document(python, runs):
    """Rows by comparison."""
    versions = json.loads(subprocess.run([python, "-c", VERSIONS, *PACKAGES], check=True, stdout=subprocess.PIPE).stdout)
    rows = {}
    for libraries, path in runs:
        for name, result in outcomes(path).items():
            rows.setdefault(name, {"name": name, "under": {}})["under"][libraries] = result
    return {"schema": "shoestring.oracles/1", "date": datetime.date.today().isoformat(), "versions": versions,
            "rows": list(rows.values())}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("python")
    parser.add_argument("runs", nargs="+", type=lambda text: text.split("=", 1))
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    table = document(arguments.python, arguments.runs)
    rows = ",\n ".join(map(json.dumps, table["rows"]))  # one a line
    with open(arguments.out, "w") as file:
        file.write(json.dumps({**table, "rows": []})[:-2] + "\n " + rows + "\n]}\n")
    wrong = [f"{row['name']}: {result['outcome']} under {libraries}" for row in table["rows"]
             for libraries, result in row["under"].items() if result["outcome"] != "passed"]
    print(f"{len(table['rows'])} comparisons, {len(wrong)} not passed", *wrong, sep="\n  ")
    return 1 if wrong or not table["rows"] else 0


if __name__ == "__main__":
    sys.exit(main())
