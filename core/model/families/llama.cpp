// Llama 2 and 3, and what follows them: grouped-query attention, SwiGLU, no bias anywhere. Mistral's models without a
// sliding window are the same; they are written as llama.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) { resolve_grouped_attention(config); }

void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  read_grouped_attention(keys, spec);
  keys.refuse_unless(keys.find("sliding_window") == nullptr, "sliding_window", "attention has no window here");
  if (keys.string("model_type") == "mistral") {
    spec.kv_heads = keys.integer("num_key_value_heads");  // not as heads
    keys.refuse_unless(keys.says_null("sliding_window"), "sliding_window",
                       "a mistral without the key has a window of 4096 tokens; one without a window says null");
  }
  keys.refuse_unless(!keys.boolean("mlp_bias", false), "mlp_bias");
}

void write_keys(const ModelConfig& config, Json& keys) {
  write_grouped_attention(config, keys);
  keys.add("mlp_bias", false);
}

}  // namespace

const Family kLlama{.architecture = Architecture::llama,
                    .class_name = "LlamaForCausalLM",
                    .also_read = "mistral",
                    .check = check,
                    .matrices = grouped_matrices,
                    .resolve = resolve,
                    .read_keys = read_keys,
                    .write_keys = write_keys};

}  // namespace shoestring
