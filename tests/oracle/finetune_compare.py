"""Fine-tuning here and in a plain loop of transformers and torch: the same losses, masks and all.

    finetune_compare.py FEED_DUMP SHOESTRING CASE tokens|documents

CASE is a family as in import_compare.py; with _lora behind it adapters are trained, of experts and latents too, which
begin as ours; or smollm2, SmolLM2-135M-Instruct with its tokenizer and chat format (generation_compare.py), in smaller
steps, and in double on their side: in single torch's loss is 5e-5 from that at the first step, ours 2e-6.

Conversations become shards, a seeded model is saved by transformers, and both sides take 20 steps on it in FP32: the
same batches (whole conversations packed into samples, none seeing another), AdamW, clipping, warm-up and cosine; the
loss is the mean over the learned tokens of the whole batch, or over documents. Losses must agree within 1e-4, gradient
norms within 1e-3 of theirs. A loop that forgets the mask, one that averages the means of micro-batches, one whose
documents see each other and, where it differs, one that leaves experts without tokens out of a step must not pass. Exit
code 77 (skipped) where a module is missing.

To torch an expert that got no token in a step has no gradient, and AdamW passes it over: it is not decayed, and its
moments stay. Here its gradient is zero, as it is of every other weight that nothing asked for, and the loop says so too.
(transformers 5 keeps the experts of a layer in one tensor, whose gradient is zero there of itself.)
"""
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np  # import_compare.py skips where it is missing
import torch
import torch.nn.utils.parametrize
import transformers

import generation_compare
import import_compare
from safetensors.torch import load_file

STEPS, SEQUENCE, MICRO_BATCH, GLOBAL_BATCH, SEED, THREADS = 20, 96, 2, 8, 5, 1
RATE, WARMUP, FINAL, CLIP, BETAS, EPSILON, DECAY = 2e-3, 4, 0.1, 1.0, (0.9, 0.95), 1e-8, 0.1
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-3
RANK, ALPHA = 4, 6


def targets(case):
    return ("q_b_proj", "kv_b_proj", "down_proj") if case == "deepseek_v3" else ("q_proj", "v_proj", "down_proj")


def recipe(mean, extra):
    return f"""
[run]
name = finetuned
seed = {SEED}
threads = {THREADS}
tensorboard = no
[budget]
gpu_hours = 1
[model]
from = model
{extra}
[precision]
policy = fp32
[optimizer]
beta1 = {BETAS[0]}
beta2 = {BETAS[1]}
epsilon = {EPSILON}
weight_decay = {DECAY}
clip = {CLIP}
[schedule]
kind = cosine
horizon = steps
learning_rate = 1
warmup_steps = {WARMUP}
final_fraction = {FINAL}
[phase.sft]
objective = masked
loss_mean = {mean}
learning_rate = {RATE}
train = shards/train
sequence = {SEQUENCE}
micro_batch = {MICRO_BATCH}
global_batch = {GLOBAL_BATCH}
steps = {STEPS}
[checkpoint]
every_minutes = 0
"""


def conversations(path):
    draw = random.Random(1)
    with open(path, "w") as file:
        for _ in range(300):
            messages = []
            for _ in range(draw.randrange(1, 4)):
                number = draw.randrange(1000)
                messages.append({"role": "user", "content": "what is " + "so " * draw.randrange(6) + f"{number}? "})
                messages.append({"role": "assistant", "content": str(number) + "!" * draw.randrange(12)})
            file.write(json.dumps({"messages": messages}) + "\n")


def ours(program, place, mean, extra):
    """Losses and gradient norms by step."""
    with open(os.path.join(place, "r.recipe"), "w") as file:
        file.write(recipe(mean, extra))
    conversations(os.path.join(place, "chats.jsonl"))
    own = os.path.exists(os.path.join(place, "model", "tokenizer.json"))
    text = ["--chat", "auto", "--tokenizer", "model"] if own else ["--chat", "plain", "--tokenizer", "bytes"]
    build = [program, "data", "build", "chats.jsonl", *text, "--out", "shards", "--hold-out", "0"]
    for command in (build, [program, "train", "r.recipe"]):
        done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{command}: {done.returncode}\n{done.stdout}")
    with open(os.path.join(place, "runs", "finetuned", "metrics.jsonl")) as file:
        steps = [line for line in map(json.loads, file) if "gradient_norm" in line]
    return [line["loss"] for line in steps], [line["gradient_norm"] for line in steps]


class Adapted(torch.nn.Module):
    """base(x) + factor * x A^T B^T."""

    def __init__(self, base, a, factor):
        super().__init__()
        self.base, self.a, self.factor = base, torch.nn.Parameter(a), factor
        self.b = torch.nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x):
        return self.base(x) + self.factor * (x @ self.a.T) @ self.b.T


class StackAdapted(torch.nn.Module):
    """The same of stacked weights, as transformers 5 keeps those of experts: w + factor * B A, expert by expert."""

    def __init__(self, base, a, factor):
        super().__init__()
        self.a, self.factor = torch.nn.Parameter(a), factor
        self.b = torch.nn.Parameter(torch.zeros(base.shape[0], base.shape[1], RANK))

    def forward(self, base):
        return base + self.factor * self.b @ self.a


def adapt(model, program, place, names, factor):
    """Adapters on the model, A as ours begins: after one step that moves nothing."""
    command = [program, "train", "r.recipe", "--run.name=initial", "--phase.sft.steps=1", "--schedule.warmup_steps=0",
               "--phase.sft.learning_rate=1e-30"]
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
    saved = load_file(os.path.join(place, "runs", "initial", "checkpoints", "step_00000001", "training",
                                   "optimizer.safetensors"))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    factor_a = lambda module: saved[f"factor.{module}.lora_A.weight"]
    for name, module in list(model.named_modules()):
        for last in names:
            stack = module._parameters.get(last)
            if stack is None:
                continue
            a = torch.stack([factor_a(f"{name}.{expert}.{last}") for expert in range(stack.shape[0])])
            torch.nn.utils.parametrize.register_parametrization(module, last, StackAdapted(stack, a, factor))
        parent, _, last = name.rpartition(".")
        if last in names:
            setattr(model.get_submodule(parent), last, Adapted(module, factor_a(name), factor))
    return model


def samples(dump, place, mean):
    data = subprocess.run([dump, "shards/train", str(SEQUENCE), str(SEED), str(STEPS * GLOBAL_BATCH), mean], cwd=place,
                          check=True, stdout=subprocess.PIPE).stdout
    rows = np.frombuffer(data, dtype=np.int32).reshape(-1, 4, SEQUENCE)
    weights = np.frombuffer(data, dtype=np.float32).reshape(-1, 4, SEQUENCE)[:, 3]
    return [(row[0], row[1], row[2], weight) for row, weight in zip(rows, weights)]


def rate(step):
    way = (step - 1) / STEPS
    return RATE * min(1, step / WARMUP) * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * way)))


def losses_of(model, batch, blind):
    """Each token's loss; `blind`: documents do not see each other."""
    inputs = torch.tensor(np.stack([row[0] for row in batch])).long()
    targets = torch.tensor(np.stack([row[1] for row in batch])).long()
    starts = torch.tensor(np.stack([row[2] for row in batch])).long()
    places = torch.arange(SEQUENCE)
    seen = places[None, :, None] >= places[None, None, :]
    if blind:
        seen = seen & (places[None, None, :] >= starts[:, :, None])
    hidden = torch.full(seen.shape, torch.finfo(torch.float32).min, dtype=model.dtype).masked_fill(seen, 0.0)
    logits = model(inputs, attention_mask=hidden[:, None].expand(len(batch), -1, -1, -1),
                   position_ids=places[None] - starts if blind else places[None].expand(len(batch), -1),
                   use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none"), targets


def theirs(model, rows, steps=STEPS, masked=True, means=False, blind=True, zeros=True):
    """A plain loop: losses and gradient norms by step."""
    model.train()
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    is_matrix = lambda name, value: value.dim() >= 2 and "embed_tokens" not in name and "lm_head" not in name
    groups = [{"params": [v for n, v in named if is_matrix(n, v)], "weight_decay": DECAY},
              {"params": [v for n, v in named if not is_matrix(n, v)], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON)
    losses, norms = [], []
    for step in range(1, steps + 1):
        batch = rows[(step - 1) * GLOBAL_BATCH:step * GLOBAL_BATCH]
        if not masked:  # every token that has one behind it in its document
            batch = [(i, np.where((s[1:] == s[:-1]).tolist() + [False], np.roll(i, -1), -1).astype(np.int32), s, w)
                     for i, _, s, w in batch]
        whole = sum(float(w[t >= 0].astype(np.float64).sum()) for _, t, _, w in batch)
        optimizer.zero_grad()
        total = 0.0
        for begin in range(0, GLOBAL_BATCH, MICRO_BATCH):
            part = batch[begin:begin + MICRO_BATCH]
            loss, targets = losses_of(model, part, blind)
            weights = torch.tensor(np.stack([row[3] for row in part])) * (targets >= 0)
            if means:
                mean = (loss * weights).sum() / weights.sum() / (GLOBAL_BATCH // MICRO_BATCH)
            else:
                mean = (loss * weights).sum() / whole
            mean.backward()
            total += float(mean.detach())
        for _, value in named:
            if zeros and value.grad is None:
                value.grad = torch.zeros_like(value)
        losses.append(total)
        norms.append(float(torch.nn.utils.clip_grad_norm_([v for _, v in named if v.grad is not None], CLIP)))
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
    return losses, norms


def worst(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def main():
    global MICRO_BATCH, GLOBAL_BATCH, RATE, THREADS
    dump, program, case, mean = sys.argv[1:]
    extra = "balance_loss = 0\nbias_speed = 0" if case.startswith(("deepseek", "qwen3_moe")) else ""
    if case.startswith("deepseek_v3"):
        extra += "\nmtp_layers = 0"  # transformers 5 writes into config.json that there is one, and has none
    failures = []
    with tempfile.TemporaryDirectory() as place:
        folder = os.path.join(place, "model")
        adapted, case = case.endswith("_lora"), case.removesuffix("_lora")
        if adapted:
            extra += f"\n[lora]\nrank = {RANK}\nalpha = {ALPHA}\ntargets = {', '.join(targets(case))}"
        if case == "smollm2":
            MICRO_BATCH, GLOBAL_BATCH, RATE, THREADS = 1, 2, 1e-4, 2
            os.mkdir(folder)
            generation_compare.model_folder(folder)
        else:
            import_compare.toy(case).save_pretrained(folder)
        our_losses, our_norms = ours(os.path.abspath(program), place, mean, extra)
        rows = samples(os.path.abspath(dump), place, mean)
        learned = sum(int((row[1] >= 0).sum()) for row in rows)
        print(f"{case}: {STEPS} steps, {learned} learned tokens of {len(rows) * SEQUENCE}")

        def fresh(factor=ALPHA / RANK):
            model = import_compare.reload(folder)
            model = model.double() if case == "smollm2" else model
            return adapt(model, os.path.abspath(program), place, targets(case), factor) if adapted else model

        their_losses, their_norms = theirs(fresh(), rows)
        loss = worst(our_losses, their_losses)
        norm = worst(our_norms, their_norms)
        print(f"loss {our_losses[0]:.6f} to {our_losses[-1]:.6f}; worst relative difference {loss:.2e}, of norms {norm:.2e}")
        if len(our_losses) != STEPS or loss > LOSS_TOLERANCE or norm > NORM_TOLERANCE:
            failures.append(f"ours\n{our_losses}\n{our_norms}\ntheirs\n{their_losses}\n{their_norms}")
        if not our_losses[-1] < (0.99 if adapted else 0.9) * our_losses[0]:
            failures.append("nothing was learned: the comparison says little")
        for what in ({"masked": False}, {"means": True}, {"blind": False}):
            seen = worst(our_losses[:2], theirs(fresh(), rows, steps=2, **what)[0])
            print(f"with {what}: {seen:.2e}")
            if seen <= LOSS_TOLERANCE:
                failures.append(f"a loop with {what} passes: the comparison sees nothing")
        if adapted:
            seen = worst(our_losses, theirs(fresh(factor=1.0), rows)[0])
            print(f"with another alpha: {seen:.2e}")
            if seen <= LOSS_TOLERANCE:
                failures.append("another alpha makes no difference: the comparison sees nothing of adapters")
        apart = transformers.__version__ < "5"  # experts are tensors of their own
        if case == "qwen3_moe" and apart and not adapted:  # one of them goes without tokens
            seen = worst(our_losses, theirs(fresh(), rows, zeros=False)[0])
            print(f"with experts left out: {seen:.2e}")
            if seen <= 10 * loss:
                failures.append("experts without tokens make no difference: the comparison sees nothing of them")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
