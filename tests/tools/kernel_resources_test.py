#!/usr/bin/env python3
"""tools/kernel_resources.py over what cuobjdump printed: kernel_resources_test.py TOOL FOLDER"""
import pathlib
import subprocess
import sys

TOOL, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
NAMES = ("_ZN10shoestring8rms_norm4cuda49_GLOBAL__N__e423869b_16_rms_norm_cuda_cu_f651216f22weight_gradient_kernelINS_8"
         "BFloat16EEEvNS2_24WeightGradientParametersE",
         "_ZN10shoestring4fill4cuda11fill_kernelEPfl")


def dump(registers=32, stack=0, names=NAMES):
    text = "Fatbin elf code:\n================\narch = sm_90a\nResource usage:\n Common:\n  GLOBAL:0\n"
    for name in names:
        text += f" Function {name}:\n  REG:{registers} STACK:{stack} SHARED:2080 LOCAL:0 CONSTANT[0]:656 TEXTURE:0\n"
    return text


def run(text, *arguments):
    return subprocess.run([sys.executable, TOOL, "-", *arguments], input=text, text=True, capture_output=True)


def expect(condition, what):
    if not condition:
        sys.exit(f"kernel_resources: {what}")


FOLDER.mkdir(parents=True, exist_ok=True)
kept = FOLDER / "kept.tsv"
first = run(dump())
expect(first.returncode == 0, first.stderr)
expect("sm_90a\trms_norm::cuda::weight_gradient_kernel<BFloat16>\t32\t0\t2080\n" in first.stdout, first.stdout)
expect("sm_90a\tfill::cuda::fill_kernel\t32\t0\t2080\n" in first.stdout, first.stdout)
kept.write_text(first.stdout, encoding="utf-8")
expect(run(dump(), "--kept", kept).returncode == 0, "equal figures differ")
other = run(dump(registers=40), "--kept", kept)
expect(other.returncode != 0 and "+sm_90a\tfill::cuda::fill_kernel\t40" in other.stdout, "more registers pass")
expect(run(dump(names=NAMES[:1]), "--kept", kept).returncode != 0, "a kernel that has gone passes")
spilled = run(dump(stack=12), "--kept", kept)
expect(spilled.returncode != 0 and "2 of them with a stack" in spilled.stdout, "a new stack passes")
expect(run("no kernel").returncode != 0, "no kernel passes")
