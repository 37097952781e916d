#!/usr/bin/env python3
"""What compiling our CUDA kernels costs, for one kind of device and for several, and whether another toolkit takes them.

  cuda_builds.py measure FOLDER [--json FILE] ARCHITECTURES...       as "90a" "80;89;90a;100"
  cuda_builds.py accept FOLDER --nvcc NVCC --include HEADERS --ptxas PTXAS [--json FILE]

measure: every .cu of kernels/, one after the other, by the nvcc of PATH with the flags of a release build and without a
compiler cache: processor seconds, bytes of the objects, and of the code in them, no PTX beside it. accept: every .cu and
every .cpp of ours that includes the toolkit, without optimisation, by the front ends of one nvcc over the headers of a
toolkit, and the code for sm_80, sm_89, sm_90a and sm_100 by an assembler. A toolkit whose nvcc cannot be had is tried so:
with the front ends of an older one, its own headers and its own assembler. FOLDER takes what is compiled, and needs some
hundred MB."""
import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++20", "--expt-relaxed-constexpr", "-Xcompiler=-Wall,-Wextra,-fPIC", f"-I{ROOT}", "-DSHOESTRING_CUDA=1"]
KINDS = ["80", "89", "90a", "100"]


def run(command):
    """Processor seconds of a command and of what it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def version(tool):
    said = subprocess.run([tool, "--version"], check=True, text=True, stdout=subprocess.PIPE).stdout
    return re.search(r"V([\d.]+)", said).group(1)


def code_bytes(archive):
    """Of device code in an object."""
    said = subprocess.run(["size", "-A", archive], check=True, text=True, stdout=subprocess.PIPE).stdout
    return sum(int(line.split()[1]) for line in said.splitlines() if line.startswith(".nv_fatbin"))


def targets(architectures):
    return [word for kind in architectures.split(";") for word in ("-gencode", f"arch=compute_{kind},code=sm_{kind}")]


def measure(options):
    rows = []
    for architectures in options.architectures:
        seconds = size = code = 0
        for source in sorted((ROOT / "kernels").glob("*.cu")):
            out = options.folder / (source.stem + ".o")
            seconds += run(["nvcc", "-O3", "-DNDEBUG", *FLAGS, *targets(architectures), "-c", source, "-o", out])
            size += out.stat().st_size
            code += code_bytes(out)
        rows.append({"architectures": architectures, "cpu_seconds": round(seconds, 1), "object_bytes": size,
                     "code_bytes": code, "over_first": round(seconds / rows[0]["cpu_seconds"], 2) if rows else 1.0})
        print(rows[-1], flush=True)
    return {"nvcc": version("nvcc"), "rows": rows}


def accept(options):
    quick = ["-Xcicc", "-O0", "-Xptxas", "-O0"]
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    for source in sources:
        out = options.folder / source.stem
        for kind in KINDS:
            known = "90" if kind == "100" else kind  # which an older nvcc knows; PTX is for later devices too
            ptx = out.with_suffix(f".{known}.ptx")
            if not ptx.exists():
                run([options.nvcc, *quick, *FLAGS, f"-I{options.include}", f"-arch=compute_{known}", "-ptx", source,
                     "-o", ptx])
            run([options.ptxas, "-O0", f"-arch=sm_{kind}", ptx, "-o", out.with_suffix(f".{kind}.cubin")])
        run([options.nvcc, "-O0", *quick, *FLAGS, "-arch=sm_80", "-c", source, "-o", out.with_suffix(".o")])
        print(f"{source.name}: {', '.join('sm_' + kind for kind in KINDS)}", flush=True)
    ours = [path for folder in ("kernels", "kernels/base", "parallel") for path in sorted((ROOT / folder).glob("*.cpp"))
            if re.search(r'#include (<(cuda|cublas)|"kernels/(base/cuda_check|gemm_cublaslt_library))', path.read_text())]
    for path in ours:
        run(["c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", f"-I{ROOT}", "-isystem", options.include,
             "-DSHOESTRING_CUDA=1", '-DSHOESTRING_CUDA_ARCHITECTURES="90a"', path])
        print(path.relative_to(ROOT), flush=True)
    return {"nvcc": version(options.nvcc), "ptxas": version(options.ptxas), "headers": options.headers(),
            "sources": [path.name for path in sources], "host_sources": [str(path.relative_to(ROOT)) for path in ours],
            "architectures": ";".join(KINDS)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for name in ("measure", "accept"):
        mode = modes.add_parser(name)
        mode.add_argument("folder", type=pathlib.Path)
        mode.add_argument("--json", type=pathlib.Path)
    modes.choices["measure"].add_argument("architectures", nargs="+")
    for tool in ("--nvcc", "--include", "--ptxas"):
        modes.choices["accept"].add_argument(tool, required=True)
    options = parser.parse_args()

    def headers():
        text = (pathlib.Path(options.include) / "cuda_runtime_api.h").read_text()
        return re.search(r"#define CUDART_VERSION\s+(\d+)", text).group(1)
    options.headers = headers
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["CCACHE_DISABLE"] = "1"
    document = {"schema": f"shoestring.cuda_builds_{options.mode}/1",
                **(measure(options) if options.mode == "measure" else accept(options))}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
