// Qwen2 and Qwen2.5: as llama, with biases on queries, keys and values.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) {
  resolve_grouped_attention(config);
  config.qkv_bias = true;
}

// The biases are always there, and have no key.
void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  spec.kv_heads = keys.integer("num_key_value_heads", spec.heads);
  spec.head_dim = keys.integer("head_dim", 0);
  keys.refuse_unless(!keys.boolean("use_sliding_window", false), "use_sliding_window");
}

void write_keys(const ModelConfig& config, Json& keys) {
  keys.add("num_key_value_heads", config.kv_heads);
  keys.add("head_dim", config.head_dim);
  keys.add("use_sliding_window", false);
}

}  // namespace

const Family kQwen2{.architecture = Architecture::qwen2,
                    .class_name = "Qwen2ForCausalLM",
                    .check = check,
                    .matrices = grouped_matrices,
                    .resolve = resolve,
                    .read_keys = read_keys,
                    .write_keys = write_keys};

}  // namespace shoestring
