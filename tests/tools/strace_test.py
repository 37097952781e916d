#!/usr/bin/env python3
"""A run of one process under strace: it writes nowhere but in its run directory, and speaks to nobody.

strace_test.py PROGRAM SOURCE; 77: strace is missing, or may not trace here."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CALLS = ("network,open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,"
         "symlinkat,mknod,mknodat,truncate,chmod,fchmodat,chown,fchownat")
NOWHERE = {"/dev/null"}


def changes(line):
    """The paths that a traced call would write to, make or remove; empty for one that only reads, or failed."""
    call = re.match(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)", line)
    if call is None or call[3].startswith("-"):
        return []
    name, words = call[1], call[2]
    if name in ("open", "openat", "creat") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", words) and name != "creat":
        return []
    paths = re.findall(r'(?:(AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', words)
    return [os.path.normpath(os.path.join(folder, path)) for _, folder, path in paths]


def trace(program, folder, words):
    log = folder / "trace"
    bare = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(["strace", "-f", "-qq", "-y", "-e", f"trace={CALLS}", "-o", log, program, *words], cwd=folder, env=bare,
                          capture_output=True, text=True)
    if "ptrace" in done.stderr and done.returncode != 0:
        print("strace may not trace here:", done.stderr.strip())
        sys.exit(77)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return log.read_text().splitlines()


def main():
    program, source = sys.argv[1], pathlib.Path(sys.argv[2])
    if shutil.which("strace") is None:
        print("strace is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        (folder / "text").mkdir()
        for number in range(20):
            (folder / "text" / f"{number}.c").write_text("".join(f"int v{i} = {i * number};\n" for i in range(100)))
        shutil.copytree(source / "recipes/hardware", folder / "hardware")
        shutil.copy(source / "tools/campaign/tiny.recipe", folder)
        subprocess.run([program, "data", "build", "text", "--out", "shards", "--tokenizer", "bytes", "--hold-out", "0.1"],
                       cwd=folder, check=True, capture_output=True)
        run = folder / "elsewhere" / "run"
        lines = trace(program, folder, ["train", "tiny.recipe", f"--run.directory={run}", "--run.tensorboard=yes"])
        inside = 0
        wrong = []
        for line in lines:
            if re.search(r"\b(socket|connect|bind|listen|accept4?|sendto|sendmsg)\(", line):
                wrong.append(f"speaks: {line}")
            for path in changes(line):
                if path == str(run.parent) or path == str(run) or path.startswith(f"{run}/"):
                    inside += 1
                elif path not in NOWHERE:
                    wrong.append(f"writes to {path}: {line}")
        if inside < 50:  # a parser that sees nothing would find nothing wrong
            sys.exit(f"only {inside} writes into {run} were seen in {len(lines)} lines:\n" + "\n".join(lines[:20]))
        if wrong:
            sys.exit("\n".join(wrong))
        print(f"{inside} calls that change files, all in the run directory; none of the network")


if __name__ == "__main__":
    main()
