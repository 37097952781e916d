"""Compares a small model with transformers and PyTorch autograd on the same weights.

    model_compare.py MODEL_DUMP ARCHITECTURE

MODEL_DUMP is the program built from model_dump.cpp. Exit code 77 (skipped) where PyTorch or transformers is missing.
transformers computes norms, RoPE tables, softmax and router scores in single precision whatever the weights' format, so
agreement is bounded by single precision over a few layers: 1e-5 of each gradient's norm, 1e-7 of the loss (1e-6 seen
at most, 3e-8). A gradient with two rows swapped must not pass.
"""
import json
import os
import subprocess
import sys
import tempfile

SKIPPED = 77
try:
    import numpy as np
    import torch
    import torch.nn.functional as F
    import transformers
    from safetensors.torch import save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import import_compare

transformers.utils.logging.set_verbosity_error()  # it reports multi-token prediction's tensors as unexpected

GRADIENT_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-7


def read_dump(folder):
    with open(os.path.join(folder, "dump.json")) as file:
        dump = json.load(file)
    values = np.fromfile(os.path.join(folder, "values.f64"))
    gradients = np.fromfile(os.path.join(folder, "gradients.f64"))
    weights, expected = {}, {}
    for tensor in dump["tensors"]:
        shape, at = tensor["shape"], tensor["offset"]
        count = int(np.prod(shape))
        weights[tensor["name"]] = torch.from_numpy(values[at:at + count].reshape(shape).copy())
        if tensor["trained"]:
            expected[tensor["name"]] = torch.from_numpy(gradients[at:at + count].reshape(shape).copy())
    return dump, weights, expected


def documents(dump):
    """[begin, end) of each document: tokens with one segment start."""
    starts = sorted(set(dump["segment_start"]))
    return list(zip(starts, starts[1:] + [len(dump["inputs"])]))


def disk_names(module, prefix, experts):
    """Parameters of a transformers module under their names on disk; fused experts become views of each expert."""
    named = {}
    for name, parameter in module.named_parameters():
        head, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for e in range(experts):
                half = parameter.shape[1] // 2
                named[f"{prefix}{head}.{e}.gate_proj.weight"] = (parameter, (e, slice(0, half)))
                named[f"{prefix}{head}.{e}.up_proj.weight"] = (parameter, (e, slice(half, None)))
        elif last == "down_proj":
            for e in range(experts):
                named[f"{prefix}{head}.{e}.down_proj.weight"] = (parameter, (e,))
        else:
            named[prefix + name] = (parameter, ())
    return named


def in_double(module):
    """transformers 4 adds up what DeepSeek-V3's experts make in the format of the router's weights, which is single."""
    for part in module.modules():
        if type(part).__name__ == "DeepseekV3TopkRouter" and transformers.__version__ < "5":
            part.register_forward_hook(lambda _, arguments, chosen: (chosen[0], chosen[1].double()))
    return module.double()


def load_into(module, prefix, weights, experts):
    with torch.no_grad():
        for name, (parameter, where) in disk_names(module, prefix, experts).items():
            parameter[where] = weights[name]
        for name, buffer in module.named_buffers():
            if prefix + name in weights:
                buffer.copy_(weights[prefix + name])


class FurtherToken(torch.nn.Module):
    """Multi-token prediction of depth 1 around transformers' decoder layer."""

    def __init__(self, model, weights, experts):
        super().__init__()
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm
        config, self.index = model.config, model.config.num_hidden_layers
        d = config.hidden_size
        self.block = in_double(DeepseekV3DecoderLayer(config, self.index))
        self.norms = torch.nn.ModuleDict(
            {name: DeepseekV3RMSNorm(d, eps=config.rms_norm_eps).double() for name in ("enorm", "hnorm", "head")})
        self.join = torch.nn.Linear(2 * d, d, bias=False).double()
        prefix = f"model.layers.{self.index}."
        load_into(self.block, prefix, weights, experts)
        self.named = disk_names(self.block, prefix, experts)
        for key, name in (("enorm", "enorm.weight"), ("hnorm", "hnorm.weight"), ("head", "shared_head.norm.weight")):
            self.named[prefix + name] = (self.norms[key].weight, ())
        self.named[prefix + "eh_proj.weight"] = (self.join.weight, ())
        with torch.no_grad():
            for name, (parameter, where) in self.named.items():
                parameter[where] = weights[name]

    def forward(self, model, hidden, ids):
        """hidden [1, n, d] of tokens 0 .. n - 1, ids [1, n] of tokens 1 .. n."""
        embedded = model.model.embed_tokens(ids)
        x = self.join(torch.cat([self.norms["enorm"](embedded), self.norms["hnorm"](hidden)], dim=-1))
        n = x.shape[1]
        positions = torch.arange(n)[None]
        mask = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1)[None, None]
        out = self.block(x, attention_mask=mask, position_ids=positions,
                         position_embeddings=model.model.rotary_emb(x, positions))
        out = out[0] if isinstance(out, tuple) else out
        return model.lm_head(self.norms["head"](out))


def losses(model, further, dump):
    inputs = torch.tensor(dump["inputs"])
    targets = torch.tensor(dump["targets"])
    main = torch.zeros((), dtype=torch.float64)
    more = torch.zeros((), dtype=torch.float64)
    for begin, end in documents(dump):
        ids, wanted = inputs[None, begin:end], targets[begin:end]
        out = model(ids, output_hidden_states=True, use_cache=False)
        main = main + F.cross_entropy(out.logits[0].double(), wanted, ignore_index=-1, reduction="sum")
        if further is not None and end - begin > 1:
            hidden = out.hidden_states[-1][:, :-1]  # after the final norm
            logits = further(model, hidden, ids[:, 1:])
            more = more + F.cross_entropy(logits[0].double(), wanted[1:], ignore_index=-1, reduction="sum")
    return main, more


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def compare(folder):
    dump, weights, expected = read_dump(folder)
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    experts = config.get("n_routed_experts", config.get("num_experts", 0))
    stored = {name: value.contiguous() for name, value in weights.items()}
    save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    options = {"dtype": torch.float64, "attn_implementation": "eager"}
    if experts and transformers.__version__ >= "5":
        options["experts_implementation"] = "eager"  # the grouped one has no double; before, there is no other
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    model = in_double(import_compare.with_yarn(model)).train()
    further = None
    if config.get("num_nextn_predict_layers", 0) > 0:
        further = FurtherToken(model, weights, experts)
    main, more = losses(model, further, dump)
    (main + dump["further_weight"] * more).backward()

    named = disk_names(model, "", experts)
    if further is not None:
        named.update(further.named)
    worst, failures = 0.0, []
    for name, gradient in expected.items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        parameter, where = named[name]
        error = relative(gradient, parameter.grad[where])
        worst = max(worst, error)
        if not error < GRADIENT_TOLERANCE:
            failures.append(f"gradient of {name}: relative error {error:.2e}")
        damaged = relative(gradient.roll(1, 0), parameter.grad[where])
        if gradient.norm() > 0 and damaged < GRADIENT_TOLERANCE:  # an expert may have had no token
            failures.append(f"gradient of {name}: passes with its rows in another order")
    for what, ours, theirs in (("loss", dump["loss"], main.item()), ("further loss", dump["further_loss"], more.item())):
        if abs(ours - theirs) > LOSS_TOLERANCE * max(1.0, abs(theirs)):
            failures.append(f"{what}: {ours} here, {theirs} there")
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([dump["prefix"]])).logits[0, -1]
    error = relative(torch.from_numpy(np.fromfile(os.path.join(folder, "logits.f32"), dtype=np.float32)).double(), logits)
    if not error < GRADIENT_TOLERANCE:
        failures.append(f"logits: relative error {error:.2e}")
    print(f"{len(expected)} gradients, worst relative error {worst:.2e}; logits {error:.2e}; "
          f"loss {dump['loss']:.9f} / {main.item():.9f}, further {dump['further_loss']:.9f} / {more.item():.9f}")
    return failures


def main():
    program, architecture = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, architecture, folder], check=True)
        failures = compare(folder)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
