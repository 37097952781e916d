"""Reads a checkpoint that `shoestring train` left with transformers alone, as a user of the model would.

    trained_checkpoint.py SHOESTRING SOURCE_FOLDER RECIPE TOKENIZER

Builds shards from the first lines of the sources in SOURCE_FOLDER, trains RECIPE for a few steps in FP32, then opens the
checkpoint as a Hugging Face model directory. Held-out text must become the tokens that the shard holds, and back the
text; its loss must be the one in the run's report. Both sides compute in single precision, on other paths: 3e-7 of the
loss (2e-8 seen). A model with two rows of a weight swapped must not pass. Exit code 77 (skipped) where a module is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

SKIPPED = 77
try:
    import h5py
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

transformers.utils.logging.set_verbosity_error()  # it reports multi-token prediction's tensors as unexpected

LOSS_TOLERANCE = 3e-7
SEQUENCE = 1024
LINES = 12  # of each source: every document fits a sequence


def write_texts(sources, folder):
    os.mkdir(folder)
    for parent, _, names in sorted(os.walk(sources)):
        for name in sorted(names):
            if not name.endswith((".h", ".cpp")):
                continue
            with open(os.path.join(parent, name), encoding="utf-8") as file:
                text = "".join(file.readlines()[-LINES:])
            if len(text.encode()) < SEQUENCE:
                with open(os.path.join(folder, f"{len(os.listdir(folder))}_{name}"), "w", encoding="utf-8") as file:
                    file.write(text)


def train(program, recipe, tokenizer, folder):
    """The checkpoint's folder and the run's report."""
    write_texts(sys.argv[2], os.path.join(folder, "text"))
    shards, run = os.path.join(folder, "shards"), os.path.join(folder, "run")
    build = [program, "data", "build", os.path.join(folder, "text"), "--out", shards, "--hold-out", "0.1",
             "--tokenizer", tokenizer]
    if tokenizer == "train":
        build += ["--vocabulary", "600"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    settings = {"data.train": f"{shards}/train", "data.validation": f"{shards}/validation", "run.directory": run,
                "precision.policy": "fp32", "model.layers": 2, "schedule.horizon": "steps", "phase.pretrain.steps": 4,
                "schedule.warmup_steps": 1, "phase.pretrain.sequence": SEQUENCE, "phase.pretrain.micro_batch": 1,
                "phase.pretrain.global_batch": 2, "evaluation.tokens": 0}
    subprocess.run([program, "train", recipe] + [f"--{key}={value}" for key, value in settings.items()], check=True,
                   stdout=subprocess.DEVNULL)
    with open(os.path.join(run, "report.json")) as file:
        report = json.load(file)
    with open(os.path.join(run, "checkpoints", "latest")) as file:
        return os.path.join(run, "checkpoints", file.read().strip()), report


def held_out(folder):
    """Token ids of each held-out document, the end-of-document id last, and the texts of all."""
    validation = os.path.join(folder, "shards", "validation")
    documents = []
    for name in sorted(os.listdir(validation)):
        with h5py.File(os.path.join(validation, name)) as shard:
            tokens, begin = shard["tokens"][:].astype("int64"), 0
            for end in shard["doc_ends"][:]:
                documents.append(tokens[begin:int(end)].tolist())
                begin = int(end)
    texts = []
    with open(os.path.join(folder, "shards", "held_out.txt"), encoding="utf-8") as lines:
        for line in lines:
            with open(line.rstrip("\n").partition("#")[0], encoding="utf-8") as file:
                texts.append(file.read())
    return documents, texts


def mean_loss(model, documents):
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for document in documents:
            ids = torch.tensor([document])
            nats += model(ids, labels=ids).loss.item() * (len(document) - 1)
            tokens += len(document) - 1
    return nats / tokens, tokens


def check_tokens(checkpoint, documents, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    failures = []
    of_text = {text: tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] for text in texts}
    if sorted(of_text.values()) != sorted(documents):
        wrong = sum(ids not in documents for ids in of_text.values())
        failures.append(f"{wrong} of {len(texts)} held-out texts become other tokens than the shard holds")
    for text, ids in of_text.items():
        if tokenizer.decode(ids[:-1]) != text:
            failures.append(f"a text does not come back from its tokens: {text[:60]!r}")
    return failures


def check_loss(checkpoint, documents, report):
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    failures = []
    ours = report["validation"]["loss"]
    theirs, tokens = mean_loss(model, documents)
    if tokens != report["validation"]["tokens"]:
        failures.append(f"{report['validation']['tokens']} held-out tokens here, {tokens} there")
    if not abs(ours - theirs) < LOSS_TOLERANCE * theirs:
        failures.append(f"held-out loss {ours} here, {theirs} there")
    with torch.no_grad():
        weight = model.model.layers[0].mlp.down_proj.weight
        weight[[0, 1]] = weight[[1, 0]]
    damaged, _ = mean_loss(model, documents)
    if abs(ours - damaged) < LOSS_TOLERANCE * theirs:
        failures.append("the loss passes with two rows of a weight swapped")
    print(f"{tokens} held-out tokens, loss {ours:.8f} / {theirs:.8f}, two rows swapped {damaged:.8f}")
    return failures


def main():
    program, _, recipe, tokenizer = sys.argv[1:5]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, report = train(program, recipe, tokenizer, folder)
        documents, texts = held_out(folder)
        failures = check_tokens(checkpoint, documents, texts) + check_loss(checkpoint, documents, report)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
