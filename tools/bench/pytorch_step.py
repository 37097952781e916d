"""One training step of a GPT-2-124M-sized Llama in PyTorch on the CPU, for `shoestring bench step --pytorch`.

Says "ready NAME" once built; then for each line "step" on its input does one whole step (forward, backward, clip,
AdamW) under bfloat16 autocast and answers with the seconds it took.

    python pytorch_step.py TOKENS BATCH SEQUENCE THREADS [--compile]

TOKENS: a file of little-endian int32 ids.
"""
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY = 12, 768, 12, 2048, 50304
DIM = HIDDEN // HEADS


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        self.post_norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * FEED_FORWARD, bias=False)
        self.down = nn.Linear(FEED_FORWARD, HIDDEN, bias=False)

    def forward(self, x, cos, sin):
        batch, sequence, _ = x.shape
        qkv = self.qkv(self.input_norm(x)).view(batch, sequence, 3, HEADS, DIM).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(batch, sequence, HIDDEN))
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Model(nn.Module):
    def __init__(self, sequence):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        angles = torch.outer(torch.arange(sequence), 10000.0 ** (-torch.arange(0, DIM, 2) / DIM))
        # In the format of the activations, so that queries and keys stay in it.
        self.register_buffer("cos", angles.cos().bfloat16())
        self.register_buffer("sin", angles.sin().bfloat16())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))


def main():
    arguments = [word for word in sys.argv[1:] if word != "--compile"]
    batch, sequence, threads = (int(word) for word in arguments[1:4])
    compiled = "--compile" in sys.argv
    torch.set_num_threads(threads)
    torch.manual_seed(17)
    with open(arguments[0], "rb") as file:
        tokens = torch.frombuffer(bytearray(file.read()), dtype=torch.int32).long()
    model = Model(sequence)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if compiled else model
    at = 0

    def step():
        nonlocal at
        size = batch * sequence
        if at + size + 1 > len(tokens):
            at = 0
        ids = tokens[at : at + size].view(batch, sequence)
        targets = tokens[at + 1 : at + size + 1].view(batch, sequence)
        at += size
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - begin
        print(f"loss {loss.item():.4f}", file=sys.stderr)
        return seconds

    step()  # memory, primitives and, where asked for, compilation
    print(f"ready PyTorch {torch.__version__}{' compiled' if compiled else ''}", flush=True)
    for line in sys.stdin:
        if line.strip() == "step":
            print(f"{step():.6f}", flush=True)


if __name__ == "__main__":
    main()
