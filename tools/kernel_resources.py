#!/usr/bin/env python3
"""What every CUDA kernel takes of a multiprocessor, read out of a build, so that nothing is compiled for it.

  kernel_resources.py ARCHIVE > tools/bench/results/kernel_resources_sm_90a.tsv
  kernel_resources.py ARCHIVE --kept tools/bench/results/kernel_resources_sm_90a.tsv

ARCHIVE: libshoestring_kernels.a of a build with CUDA; `-` reads what `cuobjdump --dump-resource-usage` printed. One line
a kernel: architecture, name, registers a thread, bytes of stack a thread, bytes of static shared memory a block. A stack
holds what was spilled. With --kept it fails where a kernel has come, has gone, or takes other than was kept, and names
those that are known to spill. Needs cuobjdump and no GPU."""
import argparse
import difflib
import re
import subprocess
import sys

USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
HEADER = "architecture\tkernel\tregisters\tstack_bytes\tshared_bytes"


def short(name):
    """Of a demangled function: without result, unnamed namespaces, our outer one, and parameters."""
    name = name.replace("(anonymous namespace)::", "").replace("shoestring::", "").removeprefix("void ")
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:at]
    return name


def figures(dump):
    lines = set()
    architecture = function = None
    for line in dump.splitlines():
        line = line.strip()
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = ")
        elif line.startswith("Function "):
            function = short(line.removeprefix("Function ").removesuffix(":"))
        elif function is not None and (usage := USAGE.match(line)):
            registers, stack, shared, local = map(int, usage.groups())
            lines.add(f"{architecture}\t{function}\t{registers}\t{stack + local}\t{shared}")
            function = None
    return sorted(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--kept")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    options = parser.parse_args()
    if options.archive == "-":
        dump = sys.stdin.read()
    else:
        dump = subprocess.run([options.cuobjdump, "--dump-resource-usage", options.archive], check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout  # it tells of members without code
    lines = figures(subprocess.run(["c++filt"], input=dump, check=True, text=True, stdout=subprocess.PIPE).stdout)
    if not lines:
        sys.exit(f"{options.archive}: no kernel is in it: give the archive of a build with SHOESTRING_CUDA=ON")
    if options.kept is None:
        return print(HEADER, *lines, sep="\n")
    with open(options.kept, encoding="utf-8") as file:
        kept = file.read().splitlines()
    changes = list(difflib.unified_diff(kept, [HEADER, *lines], options.kept, options.archive, lineterm="", n=0))
    stacks = [line for line in lines if line.split("\t")[3] != "0"]
    print(*changes, f"{len(lines)} kernels, {len(stacks)} of them with a stack", *stacks, sep="\n")
    if changes:
        sys.exit(f"the kernels take other than {options.kept} says: look why, and keep the new figures if they are meant "
                 "(without --kept they are printed)")


if __name__ == "__main__":
    main()
