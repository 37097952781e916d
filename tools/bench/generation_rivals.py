"""How fast texts are written, beside transformers: the same model, prompt, number of tokens and threads, in turns.

    generation_rivals.py SHOESTRING FOLDER [--tokens N] [--repeats N] [--threads N] [--batches 1,8] [--out FILE]

FOLDER is a Hugging Face model. Greedy, no token ends a text. What is timed is the tokens behind the first: prompts and
loading are not. Each of our measurements stands between two of theirs; a ratio is of neighbours, and their median is
told, since seconds of a shared machine say nothing. Needs torch and transformers.
"""
import argparse
import datetime
import json
import platform
import re
import statistics
import subprocess
import time

import torch
import transformers

PROMPT = "The history of the printing press begins in"
PACE = re.compile(r"then (\d+) tokens in ([0-9.]+) s")


class Marks(transformers.LogitsProcessor):
    """When logits were there."""

    def __init__(self):
        self.times = []

    def __call__(self, ids, scores):
        self.times.append(time.perf_counter())
        return scores


def theirs(model, tokenizer, batch, tokens):
    """Tokens per second of all texts together."""
    ids = tokenizer([PROMPT] * batch, add_special_tokens=False, return_tensors="pt").input_ids
    marks = Marks()
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=tokens,
                       max_new_tokens=tokens, pad_token_id=0, logits_processor=[marks])
    return batch * (len(marks.times) - 1) / (marks.times[-1] - marks.times[0])


def ours(program, folder, precision, batch, tokens, threads):
    command = [program, "sample", folder, "--prompt", PROMPT, "--tokens", str(tokens), "--temperature", "0", "--texts",
               str(batch), "--precision", precision, "--threads", str(threads), "--pace"]
    said = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    count, seconds = PACE.search(said).groups()
    return int(count) / float(seconds)


def measured(program, folder, arguments, precision, batch, model, tokenizer):
    left = theirs(model, tokenizer, batch, arguments.tokens)
    ratios, our_rates, their_rates = [], [], [left]
    for _ in range(arguments.repeats):
        own = ours(program, folder, precision, batch, arguments.tokens, arguments.threads)
        right = theirs(model, tokenizer, batch, arguments.tokens)
        ratios.append(own / (0.5 * (left + right)))
        our_rates.append(own)
        their_rates.append(right)
        left = right
    row = {"name": f"{precision}, {batch} at a time", "median": statistics.median(ratios), "least": min(ratios),
           "most": max(ratios), "repeats": len(ratios), "tokens_per_second": statistics.median(our_rates),
           "rival_tokens_per_second": statistics.median(their_rates), "rival": f"transformers, {model.dtype}"}
    print(f"{row['name']:>22}  {row['tokens_per_second']:8.1f} tokens/s beside {row['rival_tokens_per_second']:8.1f} "
          f"({row['rival']}): {row['median']:.2f} times (least {row['least']:.2f}, most {row['most']:.2f})", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=arguments.folder + "/tokenizer.json")
    rows = []
    for precision in arguments.precisions.split(","):
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        model = transformers.AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=dtype).eval()
        for batch in arguments.batches.split(","):
            rows.append(measured(arguments.program, arguments.folder, arguments, precision, int(batch), model, tokenizer))
        del model
    document = {"suite": "generation", "date": datetime.date.today().isoformat(), "machine": platform.processor() or
                platform.machine(), "threads": arguments.threads, "tokens": arguments.tokens, "prompt": PROMPT,
                "torch": torch.__version__, "transformers": transformers.__version__, "rows": rows}
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
