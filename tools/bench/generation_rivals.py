"""How fast prompts are read and texts are written, beside transformers and llama.cpp: the same model, tokens and
threads, in turns.

    generation_rivals.py SHOESTRING FOLDER [--tokens N] [--prompt-tokens N] [--repeats N] [--threads N]
                         [--batches 1,8] [--precisions fp32,bf16] [--kinds decode,prefill] [--llama GGUF] [--out FILE]

FOLDER is a Hugging Face model. Greedy, no token ends a text. Of `decode` the tokens behind the first are timed, of
`prefill` a long prompt up to the first: loading is in neither. Each of our measurements stands between two of theirs; a
ratio is of neighbours, and their median is told, since seconds of a shared machine say nothing. At the end our best
precision stands beside transformers' best. GGUF is the same model for the package llama-cpp-python, one text at a
time, in whatever format the file has. Needs torch and transformers.
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
PACE = re.compile(r"(\d+) prompts of (\d+) tokens in ([0-9.]+) s; then (\d+) tokens in ([0-9.]+) s")


class Marks(transformers.LogitsProcessor):
    """When logits were there."""

    def __init__(self):
        self.times = [time.perf_counter()]

    def __call__(self, ids, scores):
        self.times.append(time.perf_counter())
        return scores


class Transformers:
    def __init__(self, folder, precision, threads):
        torch.set_num_threads(threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json")
        self.name = f"transformers, {dtype}"

    def rate(self, kind, prompt, batch, tokens):
        """Tokens per second of all texts together."""
        ids = self.tokenizer([prompt] * batch, add_special_tokens=False, return_tensors="pt").input_ids
        marks = Marks()
        with torch.no_grad():
            self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=tokens,
                                max_new_tokens=tokens, pad_token_id=0, logits_processor=[marks])
        if kind == "prefill":
            return ids.numel() / (marks.times[1] - marks.times[0])
        return batch * (len(marks.times) - 2) / (marks.times[-1] - marks.times[1])


class LlamaCpp:
    def __init__(self, file, tokenizer, threads, capacity):
        import llama_cpp
        self.model = llama_cpp.Llama(model_path=file, n_ctx=capacity, n_batch=512, n_threads=threads,
                                     n_threads_batch=threads, verbose=False)
        self.tokenizer = tokenizer
        self.name = f"llama.cpp {llama_cpp.__version__}, {file.rsplit('/', 1)[-1]}"

    def rate(self, kind, prompt, batch, tokens):
        assert batch == 1
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        self.model.reset()
        begin = time.perf_counter()
        self.model.eval(ids)
        token = self.model.sample(temp=0.0)
        if kind == "prefill":
            return len(ids) / (time.perf_counter() - begin)
        begin = time.perf_counter()
        for _ in range(tokens - 1):
            self.model.eval([token])
            token = self.model.sample(temp=0.0)
        return (tokens - 1) / (time.perf_counter() - begin)


class Shoestring:
    def __init__(self, program, folder, precision, threads):
        self.command = [program, "sample", folder, "--temperature", "0", "--precision", precision, "--threads",
                        str(threads), "--pace"]

    def rate(self, kind, prompt, batch, tokens):
        command = self.command + ["--prompt", prompt, "--tokens", str(tokens), "--texts", str(batch)]
        said = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
        prompts, length, first, count, rest = PACE.search(said).groups()
        if kind == "prefill":  # the prompts of all texts: the last one's first token ends it
            return int(prompts) * int(length) / (float(first) + float(rest))
        return int(count) / float(rest)


def in_turns(own, rival, kind, prompt, batch, tokens, repeats):
    left = rival.rate(kind, prompt, batch, tokens)
    ratios, own_rates, rival_rates = [], [], [left]
    for _ in range(repeats):
        own_rates.append(own.rate(kind, prompt, batch, tokens))
        right = rival.rate(kind, prompt, batch, tokens)
        ratios.append(own_rates[-1] / (0.5 * (left + right)))
        rival_rates.append(right)
        left = right
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "repeats": repeats,
            "tokens_per_second": statistics.median(own_rates),
            "rival_tokens_per_second": statistics.median(rival_rates), "rival": rival.name}


def tell(row):
    print(f"{row['name']:>28}  {row['tokens_per_second']:8.1f} tokens/s beside {row['rival_tokens_per_second']:8.1f} "
          f"({row['rival']}): {row['median']:.2f} times (least {row['least']:.2f}, most {row['most']:.2f})", flush=True)


def best_of(rows):
    """By kind and batch: our fastest precision beside the fastest of transformers, in the middle of their turns."""
    cases = {}
    for row in rows:
        if row["rival"].startswith("transformers"):
            cases.setdefault((row["kind"], row["batch"]), []).append(row)
    return [{"kind": kind, "batch": batch,
             "ratio": max(row["tokens_per_second"] for row in found) /
             max(row["rival_tokens_per_second"] for row in found)} for (kind, batch), found in cases.items()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--kinds", default="decode,prefill")
    parser.add_argument("--llama")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    batches = [int(batch) for batch in arguments.batches.split(",")]
    kinds = arguments.kinds.split(",")
    rows = []

    def row(own, rival, precision, kind, batch, tokenizer):
        words = " ".join([PROMPT] * (1 + arguments.prompt_tokens // 8))
        ids = tokenizer(words, add_special_tokens=False).input_ids[:arguments.prompt_tokens]
        prompt = tokenizer.decode(ids) if kind == "prefill" else PROMPT
        tokens = 1 if kind == "prefill" else arguments.tokens
        found = in_turns(own, rival, kind, prompt, batch, tokens, arguments.repeats)
        rows.append({"name": f"{kind}, {precision}, {batch} at a time", "kind": kind, "batch": batch,
                     "precision": precision, **found})
        tell(rows[-1])

    for precision in arguments.precisions.split(","):
        own = Shoestring(arguments.program, arguments.folder, precision, arguments.threads)
        rival = Transformers(arguments.folder, precision, arguments.threads)
        for batch in batches:
            for kind in kinds:
                row(own, rival, precision, kind, batch, rival.tokenizer)
        if arguments.llama:
            llama = LlamaCpp(arguments.llama, rival.tokenizer, arguments.threads, 2 * arguments.prompt_tokens + 512)
            for kind in kinds:
                row(own, llama, precision, kind, 1, rival.tokenizer)
            del llama
        del rival
    best = best_of(rows)
    for case in best:
        print(f"best beside best, {case['kind']}, {case['batch']} at a time: {case['ratio']:.2f} times")
    document = {"suite": "generation", "date": datetime.date.today().isoformat(), "machine": platform.processor() or
                platform.machine(), "threads": arguments.threads, "tokens": arguments.tokens,
                "prompt_tokens": arguments.prompt_tokens, "prompt": PROMPT, "torch": torch.__version__,
                "transformers": transformers.__version__, "rows": rows, "best_beside_best": best}
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
