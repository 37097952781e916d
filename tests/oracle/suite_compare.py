"""Scores of suites beside lm-evaluation-harness: the same model, questions and numbers.

    suite_compare.py SHOESTRING

SmolLM2-135M-Instruct (generation_compare.py) answers multiple-choice questions, continuations, whole texts and short
questions through `shoestring evaluate` and through lm_eval's own tasks over the same documents, both in single
precision and with 96 positions, so that long contexts and texts are cut. Every metric agrees within 1e-4 of its value;
with one question's gold exchanged it must not. Exit code 77 (skipped) where a module is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

SKIPPED = 77
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
try:
    import transformers
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import generation_compare
import import_compare

POSITIONS = 96
TOLERANCE = 1e-4
QUESTIONS = [
    ("The capital of France is", ["Paris", "London", "a bicycle", "Rome"], 0),
    ("Water is made of hydrogen and", ["oxygen", "gold", "sand"], 0),
    ("The opposite of hot is", ["warm", "cold", "very blue"], 1),
    ("The sun rises in the ", ["east", "west", "evening", "north"], 0),
    ("Caf\u00e9s in Z\u00fcrich sell", ["coffee", "\u00e9toiles", "trains"], 0),
    ("", ["The quick brown fox", "Fox brown quick the"], 0),
    ("All of this happened a long time ago. " * 20 + "It happened a long time", ["ago", "tomorrow"], 0),
]
CONTINUATIONS = [("Once upon a", " time"), ("The cat sat on the", " mat"), ("To be or not to", " be")]
TEXTS = ["The printing press changed how people shared what they knew.",
         "A list:\n  one,\n\n  three.  An end.\n",
         "Rivers carry water from mountains to the sea. " * 12,
         "na\u00efve caf\u00e9 \u2014 d\u00e9j\u00e0 vu"]
SHORT = [("Question: What is the capital of France?\nAnswer:", "Paris"),
         ("The days of the week are Monday, Tuesday,", " Wednesday, Thursday, Friday, Saturday, and Sunday.")]


def documents():
    """By task: what our suite asks, and lm_eval's document of it."""
    tasks = {"choice": [], "continuation": [], "text": [], "answer": []}
    for context, choices, gold in QUESTIONS:
        tasks["choice"].append(dict(request_type="multiple_choice", context=context, choices=choices, gold=gold))
    for context, continuation in CONTINUATIONS:
        tasks["continuation"].append(dict(request_type="loglikelihood", context=context, continuation=continuation))
    for text in TEXTS:
        tasks["text"].append(dict(request_type="loglikelihood_rolling", text=text))
    for context, target in SHORT:
        tasks["answer"].append(dict(request_type="generate_until", context=context, target=target, until=["\n"],
                                    max_gen_toks=16))
    return tasks


SETTINGS = {
    "choice": dict(output_type="multiple_choice", doc_to_text="context", doc_to_choice="choices", doc_to_target="gold",
                   metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}]),
    "continuation": dict(output_type="loglikelihood", doc_to_text="context", doc_to_target="continuation",
                         target_delimiter="", metric_list=[{"metric": "perplexity"}, {"metric": "acc"}]),
    "text": dict(output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="text",
                 metric_list=[{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}]),
    "answer": dict(output_type="generate_until", doc_to_text="context", doc_to_target="target",
                   generation_kwargs=dict(until=["\n"], max_gen_toks=16, do_sample=False),
                   metric_list=[{"metric": "exact_match"}]),
}


def theirs(place, folder, tasks):
    model = import_compare.reload(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"),
                                                     bos_token="<|im_start|>", eos_token="<|im_end|>",
                                                     pad_token="<|endoftext|>")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1, max_length=POSITIONS)
    asked = {}
    for name, lines in tasks.items():
        file = os.path.join(place, name + ".jsonl")
        with open(file, "w") as out:
            for line in lines:
                out.write(json.dumps(line) + "\n")
        asked[name] = ConfigurableTask(config=dict(SETTINGS[name], task=name, dataset_path="json", test_split="test",
                                                   dataset_kwargs=dict(data_files=dict(test=file))))
    return evaluator.evaluate(lm=lm, task_dict=asked, bootstrap_iters=2)["results"]  # with 0 no metric has an error


def ours(program, place, folder, tasks):
    suite, out = os.path.join(place, "suite.jsonl"), os.path.join(place, "results.json")
    with open(suite, "w") as file:
        for name, lines in tasks.items():
            for line in lines:
                file.write(json.dumps(dict(line, task=name)) + "\n")
    subprocess.run([program, "evaluate", folder, "--suite", suite, "--out", out, "--precision", "fp32", "--context",
                    str(POSITIONS)], check=True, stdout=subprocess.DEVNULL)
    with open(out) as file:
        return json.load(file)["results"]


def differing(own, other):
    wrong = []
    for task, scores in own.items():
        for metric, value in scores.items():
            if metric == "alias" or "stderr" in metric:
                continue
            expected = other[task].get(metric)
            if expected is None or abs(value - expected) > TOLERANCE * abs(expected):
                wrong.append(f"{task} {metric}: {value} instead of {expected}")
    for metric in ("acc_stderr,none", "acc_norm_stderr,none"):  # where the harness has a formula, it is ours
        if abs(own["choice"][metric] - other["choice"][metric]) > 1e-9:
            wrong.append(f"choice {metric}: {own['choice'][metric]} instead of {other['choice'][metric]}")
    return wrong


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as place:
        folder = os.path.join(place, "model")
        os.mkdir(folder)
        generation_compare.model_folder(folder)
        tasks = documents()
        expected = theirs(place, folder, tasks)
        found = ours(program, place, folder, tasks)
        failures = differing(found, expected)
        print(json.dumps(found, indent=1))
        tasks["choice"][0]["gold"] = 2
        if not differing(ours(program, place, folder, {"choice": tasks["choice"]}), expected):
            failures.append("another gold answer passes")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
