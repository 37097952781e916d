// Published models, as their config.json says.
#pragma once

#include "core/model/config.h"

namespace shoestring::testing {

inline ModelConfig llama_3_8b() {
  ModelSpec spec;
  spec.architecture = Architecture::llama;
  spec.vocabulary = 128256;
  spec.layers = 32;
  spec.hidden = 4096;
  spec.heads = 32;
  spec.kv_heads = 8;
  spec.feed_forward = 14336;
  spec.max_positions = 8192;
  return resolve_model(spec, 0, 0);
}

inline ModelConfig qwen2_5_7b() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen2;
  spec.vocabulary = 152064;
  spec.layers = 28;
  spec.hidden = 3584;
  spec.heads = 28;
  spec.kv_heads = 4;
  spec.feed_forward = 18944;
  spec.max_positions = 32768;
  return resolve_model(spec, 0, 0);
}

inline ModelConfig qwen3_8b() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen3;
  spec.vocabulary = 151936;
  spec.layers = 36;
  spec.hidden = 4096;
  spec.heads = 32;
  spec.kv_heads = 8;
  spec.head_dim = 128;
  spec.feed_forward = 12288;
  spec.max_positions = 40960;
  return resolve_model(spec, 0, 0);
}

inline ModelConfig qwen3_30b_a3b() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen3_moe;
  spec.vocabulary = 151936;
  spec.layers = 48;
  spec.hidden = 2048;
  spec.heads = 32;
  spec.kv_heads = 4;
  spec.head_dim = 128;
  spec.experts = 128;
  spec.experts_per_token = 8;
  spec.expert_feed_forward = 768;
  spec.max_positions = 40960;
  return resolve_model(spec, 0, 0);
}

inline ModelConfig deepseek_v3() {
  ModelSpec spec;
  spec.architecture = Architecture::deepseek_v3;
  spec.vocabulary = 129280;
  spec.layers = 61;
  spec.hidden = 7168;
  spec.heads = 128;
  spec.feed_forward = 18432;
  spec.max_positions = 163840;
  spec.q_lora_rank = 1536;
  spec.kv_lora_rank = 512;
  spec.qk_nope_head_dim = 128;
  spec.qk_rope_head_dim = 64;
  spec.v_head_dim = 128;
  spec.experts = 256;
  spec.experts_per_token = 8;
  spec.shared_experts = 1;
  spec.expert_feed_forward = 2048;
  spec.dense_layers = 3;
  spec.expert_groups = 8;
  spec.expert_topk_groups = 4;
  spec.routed_scale = 2.5;
  spec.mtp_layers = 1;
  return resolve_model(spec, 0, 0);
}

}  // namespace shoestring::testing
