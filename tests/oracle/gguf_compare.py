"""Our exports through llama.cpp's converter: its Python script, unchanged, from the source package of llama-cpp-python.

    gguf_compare.py SHOESTRING CASE

A seeded model of the case (import_compare.py) with the published tokenizer of its family, or SmolLM2-135M-Instruct
(generation_compare.py), goes out by `shoestring export` in BF16; convert_hf_to_gguf.py makes a GGUF of it in FP32, and
its tensors, what the converter does to them undone, have the bits of what was exported: rows of llama's queries and
keys are permuted back, stacked experts taken apart, latent keys and values put together. It must know the tokenizer by
its hash. Where one value is changed the comparison must fail. Exit code 77 (skipped) where a module or a package is
missing.
"""
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

import numpy as np  # import_compare.py skips where it is missing

import generation_compare
import import_compare
import tokenizer_files

SKIPPED = 77
try:
    import gguf
    import sentencepiece  # noqa: F401 - the converter asks for it before it looks for tokenizer.json
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

# Tokenizer, its name to the converter, its end of text, and rows of the vocabulary.
LLAMA = ("smollm2", "smollm", "<|endoftext|>", 49152)
QWEN = ("qwen2", "qwen2", "<|endoftext|>", 151936)
# Under transformers 5 DeepSeek's own files put no BOS before a text either, which to the converter is another model's.
DEEPSEEK = ("deepseek", "deepseek-v3" if transformers.__version__ < "5" else "joyai-llm",
            "<\uff5cend\u2581of\u2581sentence\uff5c>", 129280)
FAMILIES = {"llama": LLAMA, "llama_tied": LLAMA, "mistral": LLAMA, "smollm2": LLAMA, "qwen2": QWEN, "qwen3": QWEN,
            "qwen3_moe": QWEN, "deepseek_v2": DEEPSEEK, "deepseek_v3": DEEPSEEK}
BEGIN = {"deepseek": "<\uff5cbegin\u2581of\u2581sentence\uff5c>"}


def converter():
    """The script, unpacked once."""
    folder = os.path.join(tokenizer_files.cache_folder(), "llama.cpp")
    if not os.path.exists(folder):
        place = folder + ".part"
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(tokenizer_files.package(tokenizer_files.VECTORS, "--no-binary", ":all:",
                                                "--no-build-isolation")) as source:
            wanted = [member for member in source.getmembers() if member.isfile() and member.name.endswith(".py") and
                      ("/llama.cpp/conversion/" in member.name or "/llama.cpp/gguf-py/" in member.name or
                       member.name.endswith("/llama.cpp/convert_hf_to_gguf.py"))]
            for member in wanted:
                member.name = member.name.partition("/llama.cpp/")[2]
                source.extract(member, place, filter="data")
        os.rename(place, folder)
    return os.path.join(folder, "convert_hf_to_gguf.py")


def model_folder(case, folder):
    if case == "smollm2":
        os.mkdir(folder)
        return generation_compare.model_folder(folder)
    name, _, end, rows = FAMILIES[case]
    import_compare.COMMON["vocab_size"] = rows
    import_compare.toy(case).save_pretrained(folder)
    shutil.copyfile(tokenizer_files.tokenizer_file(name), os.path.join(folder, "tokenizer.json"))
    begin = BEGIN.get(name)
    kind = "LlamaTokenizerFast" if name == "deepseek" else "PreTrainedTokenizerFast"  # as they are published
    config = {"tokenizer_class": kind, "eos_token": end, "bos_token": begin,
              "add_bos_token": begin is not None}
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump(config, file)


def unpermuted(rows, heads):
    """Of llama's queries and keys: pairs that stood beside each other stand half a head apart again."""
    width = rows.shape[0] // heads // 2
    return rows.reshape(heads, width, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class Converted:
    """Tensors of a GGUF by the names that Hugging Face has for them."""

    def __init__(self, file, config):
        self.reader = gguf.GGUFReader(file)
        self.config = config
        self.tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in self.reader.tensors}
        architecture = self.text("general.architecture")
        kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
        self.names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])

    def text(self, key):
        return self.reader.fields[key].contents()

    def stacked(self, name):
        return self.tensors[self.names.get_name(name, try_suffixes=(".weight", ".bias"))]

    def tensor(self, name):
        front, _, rest = name.partition(".mlp.experts.")
        if rest:  # N.gate_proj.weight
            number, _, projection = rest.partition(".")
            return self.stacked(f"{front}.mlp.experts.{projection}")[int(number)]
        if name.endswith("kv_b_proj.weight"):
            return self.latent(name)
        if name.endswith("e_score_correction_bias"):
            return self.stacked(name.replace("e_score_correction_bias", "e_score_correction.bias"))
        found = self.stacked(name)
        if self.config["model_type"] == "llama" and "q_proj" in name:
            return unpermuted(found, self.config["num_attention_heads"])
        if self.config["model_type"] == "llama" and "k_proj" in name:
            return unpermuted(found, self.config["num_key_value_heads"])
        return found

    def latent(self, name):
        keys = self.stacked(name.replace("kv_b_proj", "k_b_proj"))  # [heads, latent, nope]
        values = self.stacked(name.replace("kv_b_proj", "v_b_proj"))  # [heads, v, latent]
        return np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(-1, keys.shape[1])


def differing(exported, converted):
    """Names of tensors that are not the same bits."""
    wrong = []
    for name, value in exported.items():
        if converted.config.get("tie_word_embeddings") and name == "lm_head.weight":
            continue
        found = converted.tensor(name)
        expected = value.float().numpy()
        if found.shape != expected.shape or not np.array_equal(found.view(np.uint32), expected.view(np.uint32)):
            wrong.append(name)
    return wrong


def main():
    program, case = sys.argv[1:]
    failures = []
    try:
        script = converter()
        tokenizer_files.tokenizer_file(FAMILIES[case][0])
    except tokenizer_files.NotThere as reason:
        print(f"skipped: {reason}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as place:
        folder, file = os.path.join(place, "model"), os.path.join(place, "model.gguf")
        model_folder(case, folder)
        out = import_compare.export(program, folder, "bf16")
        done = subprocess.run([sys.executable, script, out, "--outtype", "f32", "--outfile", file],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            print(done.stdout)
            return 1
        with open(os.path.join(out, "config.json")) as config:
            converted = Converted(file, json.load(config))
        exported = import_compare.tensors_of(out)
        wrong = differing(exported, converted)
        if wrong:
            failures.append(f"{len(wrong)} of {len(exported)} tensors differ: {wrong[:5]}")
        known = converted.text("tokenizer.ggml.pre")
        if known != FAMILIES[case][1]:
            failures.append(f"the tokenizer is taken for {known}, not {FAMILIES[case][1]}")
        some = next(name for name in exported if name.endswith("down_proj.weight"))
        exported[some][0, 0] += 1
        if differing(exported, converted) != wrong + [some]:
            failures.append("a changed value passes")
        print(f"{case}: {len(exported)} tensors, {converted.text('general.architecture')}, tokenizer {known}")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
