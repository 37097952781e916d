// Qwen3: as llama, with an RMSNorm of each query and key head before RoPE.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) {
  resolve_grouped_attention(config);
  config.qk_norm = true;
}

/// Absent, a head has 128 elements, whatever the hidden size.
constexpr std::int64_t kHeadDim = 128;

void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  read_grouped_attention(keys, spec);
  spec.head_dim = keys.integer("head_dim", kHeadDim);
}

}  // namespace

const Family kQwen3{.architecture = Architecture::qwen3,
                    .class_name = "Qwen3ForCausalLM",
                    .check = check,
                    .matrices = grouped_matrices,
                    .resolve = resolve,
                    .read_keys = read_keys,
                    .write_keys = write_grouped_attention};

}  // namespace shoestring
