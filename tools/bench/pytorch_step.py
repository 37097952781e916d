"""One training step of a dense Llama in PyTorch, for `shoestring bench step --pytorch` and tools/gpu_visit.sh.

Tries fp32 and bfloat16 autocast, eagerly and where asked for compiled, keeps what is fastest here, and says "ready NAME";
then for each line "step" on its input does one whole step (forward, backward, clip, AdamW) and answers with the seconds
it took.

    python pytorch_step.py TOKENS THREADS BATCH SEQUENCE LAYERS HIDDEN HEADS KV_HEADS FEED_FORWARD VOCABULARY
                           [--compile] [--cuda]

TOKENS: a file of little-endian int32 ids, or `random`. With --cuda: on a GPU, in bfloat16, compiled, nothing else tried.
"""
import sys
import time
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn

Shape = namedtuple("Shape", "batch sequence layers hidden heads kv_heads feed_forward vocabulary")


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.dim = shape.hidden // shape.heads
        self.input_norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.post_norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.qkv = nn.Linear(shape.hidden, (shape.heads + 2 * shape.kv_heads) * self.dim, bias=False)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, sequence, hidden = x.shape
        heads, kv_heads = self.shape.heads, self.shape.kv_heads
        qkv = self.qkv(self.input_norm(x)).view(batch, sequence, heads + 2 * kv_heads, self.dim).transpose(1, 2)
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
        x = x + self.out(o.transpose(1, 2).reshape(batch, sequence, hidden))
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Model(nn.Module):
    def __init__(self, shape, activations):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        dim = shape.hidden // shape.heads
        angles = torch.outer(torch.arange(shape.sequence), 10000.0 ** (-torch.arange(0, dim, 2) / dim))
        # In the format of the activations, so that queries and keys stay in it.
        self.register_buffer("cos", angles.cos().to(activations))
        self.register_buffer("sin", angles.sin().to(activations))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Trainer:
    """A model under one setting, with one untimed step behind it: memory, primitives, compilation."""

    def __init__(self, tokens, shape, activations, compiled, device="cpu"):
        torch.manual_seed(17)
        self.device = device
        self.name = ("fp32" if activations == torch.float32 else "bf16") + (" compiled" if compiled else " eager")
        self.tokens, self.shape, self.activations, self.at = tokens.to(device), shape, activations, 0
        self.model = Model(shape, activations).to(device)
        self.loss_of = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.step()

    def step(self):
        size = self.shape.batch * self.shape.sequence
        if self.at + size + 1 > len(self.tokens):
            self.at = 0
        ids = self.tokens[self.at : self.at + size].view(self.shape.batch, self.shape.sequence)
        targets = self.tokens[self.at + 1 : self.at + size + 1].view(self.shape.batch, self.shape.sequence)
        self.at += size
        begin = time.perf_counter()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.activations == torch.bfloat16):
            loss = self.loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        print(f"{self.name}: loss {loss.item():.4f}, {seconds:.3f} s", file=sys.stderr)
        return seconds


def worth_trying(shape):
    """Formats: bfloat16 only where its products are not many times slower than fp32's, as they are without AVX-512."""
    def seconds(activations):
        x, w = (torch.ones(shape.sequence, shape.hidden, dtype=activations) for _ in range(2))
        took = []
        for _ in range(3):
            begin = time.perf_counter()
            F.linear(x, w)
            took.append(time.perf_counter() - begin)
        return min(took)

    hopeless = seconds(torch.bfloat16) > 3 * seconds(torch.float32)
    return (torch.float32,) if hopeless else (torch.float32, torch.bfloat16)


def fastest(tokens, shape, compiling):
    """(format, compiled) of the fastest of what was asked for, the better of two steps each."""
    seconds = {}
    for compiled in (False, True) if compiling else (False,):
        for activations in worth_trying(shape):
            trainer = Trainer(tokens, shape, activations, compiled)
            seconds[activations, compiled] = min(trainer.step(), trainer.step())
    return min(seconds, key=seconds.get)


def main():
    arguments = [word for word in sys.argv[1:] if word not in ("--compile", "--cuda")]
    torch.set_num_threads(int(arguments[1]))
    shape = Shape(*(int(word) for word in arguments[2:10]))
    if arguments[0] == "random":
        tokens = torch.randint(shape.vocabulary, (1 << 20,))
    else:
        with open(arguments[0], "rb") as file:
            tokens = torch.frombuffer(bytearray(file.read()), dtype=torch.int32).long()
    if "--cuda" in sys.argv:
        trainer = Trainer(tokens, shape, torch.bfloat16, True, "cuda")
    else:
        trainer = Trainer(tokens, shape, *fastest(tokens, shape, "--compile" in sys.argv))
    print(f"ready PyTorch {torch.__version__} {trainer.name}", flush=True)
    for line in sys.stdin:
        if line.strip() == "step":
            print(f"{trainer.step():.6f}", flush=True)


if __name__ == "__main__":
    main()
