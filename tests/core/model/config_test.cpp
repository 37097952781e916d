#include "core/model/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/model/hugging_face_config.h"
#include "kernels/base/check.h"
#include "kernels/router.h"
#include "tests/core/model/published_models.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

bool mentions(const std::vector<ConfigProblem>& problems, const std::string& key) {
  for (const ConfigProblem& problem : problems) {
    if (problem.key == key) return true;
  }
  return false;
}

TEST(Config, DefaultsAreFilled) {
  ModelSpec spec = small_spec(Architecture::llama);
  spec.vocabulary = 0;
  spec.kv_heads = 0;
  spec.max_positions = 0;
  const ModelConfig config = resolve_model(spec, 1000, 512);
  EXPECT_EQ(config.vocabulary, 1024);
  EXPECT_EQ(config.kv_heads, config.heads);
  EXPECT_EQ(config.head_dim, 6);
  EXPECT_EQ(config.max_positions, 512);
  EXPECT_DOUBLE_EQ(config.softmax_scale, 1 / std::sqrt(6.0));
}

TEST(Config, YarnScalesLatentAttention) {
  const ModelConfig config = small_config(Architecture::deepseek_v3);
  const double mscale = 0.1 * std::log(4.0) + 1;
  EXPECT_DOUBLE_EQ(config.softmax_scale, mscale * mscale / std::sqrt(16.0));
}

TEST(Config, EveryProblemIsReported) {
  ModelSpec spec = small_spec(Architecture::deepseek_v3);
  spec.heads = 0;
  spec.kv_lora_rank = 0;
  spec.qk_rope_head_dim = 7;
  spec.experts_per_token = 9;
  spec.mtp_layers = 2;
  spec.norm_eps = -1;
  spec.vocabulary = 10;
  const std::vector<ConfigProblem> problems = check_model(spec, 50);
  for (const char* key :
       {"heads", "kv_lora_rank", "qk_rope_head_dim", "experts_per_token", "mtp_layers", "norm_eps", "vocabulary"}) {
    EXPECT_TRUE(mentions(problems, std::string("model.") + key)) << key;
  }
  EXPECT_THROW(resolve_model(spec, 50, 0), Error);
}

// What the kernels refuse would otherwise end the run as a bug of the program.
TEST(Config, IsAsStrictAsTheKernels) {
  const ModelSpec good = small_spec(Architecture::deepseek_v3);
  EXPECT_TRUE(check_model(good, 0).empty());
  ModelSpec spec = good;
  spec.rope_theta = 1;
  EXPECT_TRUE(mentions(check_model(spec, 0), "model.rope_theta"));
  spec = good;
  spec.rope_beta_fast = spec.rope_beta_slow;
  EXPECT_TRUE(mentions(check_model(spec, 0), "model.rope_beta_fast"));
  spec = good;
  spec.experts = kRouterMaxExperts;
  EXPECT_TRUE(check_model(spec, 0).empty());
  spec.experts = 2 * kRouterMaxExperts;
  EXPECT_TRUE(mentions(check_model(spec, 0), "model.experts"));
}

// The bytes of such models do not fit 64 bits.
TEST(Config, MatricesBeyondCountingAreRefused) {
  const std::int64_t much = std::int64_t{1} << 24;
  const std::pair<std::int64_t ModelSpec::*, const char*> latent[] = {
      {&ModelSpec::expert_feed_forward, "expert_feed_forward"},
      {&ModelSpec::q_lora_rank, "q_lora_rank"},
      {&ModelSpec::kv_lora_rank, "kv_lora_rank"},
      {&ModelSpec::v_head_dim, "v_head_dim"},
      {&ModelSpec::qk_nope_head_dim, "heads"},
      {&ModelSpec::feed_forward, "feed_forward"}};
  for (const auto& [extent, key] : latent) {
    ModelSpec spec = small_spec(Architecture::deepseek_v3);
    spec.mtp_layers = 0;
    spec.hidden = much / 2;
    EXPECT_FALSE(mentions(check_model(spec, 0), std::string("model.") + key)) << key;
    spec.*extent = much;
    if (extent == &ModelSpec::qk_nope_head_dim) spec.q_lora_rank = 0;
    EXPECT_TRUE(mentions(check_model(spec, 0), std::string("model.") + key)) << key;
  }
  ModelSpec spec = small_spec(Architecture::deepseek_v3);
  spec.hidden = much;  // joined with the embedding for multi-token prediction
  EXPECT_TRUE(mentions(check_model(spec, 0), "model.hidden"));
  spec = small_spec(Architecture::llama);
  spec.hidden = much;
  EXPECT_TRUE(mentions(check_model(spec, 0), "model.heads"));
}

TEST(Config, WhatAFamilyHasNotIsRefused) {
  ModelSpec spec = small_spec(Architecture::llama);
  spec.experts = 8;
  spec.mtp_layers = 1;
  const std::vector<ConfigProblem> problems = check_model(spec, 0);
  EXPECT_TRUE(mentions(problems, "model.experts"));
  EXPECT_TRUE(mentions(problems, "model.mtp_layers"));
}

TEST(HuggingFaceConfig, RoundTrip) {
  for (const ModelConfig& config :
       {llama_3_8b(), qwen2_5_7b(), qwen3_8b(), deepseek_v3(), small_config(Architecture::llama),
        small_config(Architecture::qwen2), small_config(Architecture::qwen3_moe),
        small_config(Architecture::deepseek_v2), small_config(Architecture::deepseek_v3)}) {
    const std::string text = write_hugging_face_config(
        config, {.bos_token = 1, .eos_tokens = {2, 5}, .torch_dtype = "bfloat16", .fp8_block = 128});
    const ModelConfig again = read_hugging_face_config(text);
    EXPECT_EQ(write_hugging_face_config(again, read_hugging_face_facts(text)), text) << name(config.architecture);
    EXPECT_EQ(again.layers, config.layers);
    EXPECT_EQ(again.qk_dim, config.qk_dim);
    EXPECT_DOUBLE_EQ(again.softmax_scale, config.softmax_scale);
    EXPECT_EQ(again.experts, config.experts);
    EXPECT_EQ(again.mtp_layers, config.mtp_layers);
  }
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

/// Why the text is no config.json of a model of ours; empty where it is one.
std::string refusal(const std::string& text) {
  try {
    read_hugging_face_config(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    return error.what();
  }
  return {};
}

// Keys that transformers 5 writes, and what is absent in files of transformers 4.
TEST(HuggingFaceConfig, BothFormsOfKeysAreRead) {
  const std::string old = write_hugging_face_config(small_config(Architecture::qwen3_moe), {});
  std::string text = with(old, "\"num_experts\"", "\"num_local_experts\"");
  text = with(text, "\"torch_dtype\"", "\"dtype\"");
  text =
      with(text, "\"rope_theta\": 10000.0", "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 77.5}");
  const ModelConfig config = read_hugging_face_config(text);
  EXPECT_EQ(config.experts, 6);
  EXPECT_EQ(config.rope_theta, 77.5);
  EXPECT_EQ(read_hugging_face_facts(text).torch_dtype, "float32");
  // A head of Qwen3 has 128 elements where nothing is said.
  EXPECT_EQ(read_hugging_face_config(with(old, "\"head_dim\": 10", "\"head_dim\": null")).head_dim, 128);

  const std::string yarn = write_hugging_face_config(small_config(Architecture::deepseek_v2), {});
  const ModelConfig stretched = read_hugging_face_config(with(yarn, "\"factor\": 4.0", "\"factor\": null"));
  EXPECT_EQ(stretched.rope_factor, 4);  // positions over original ones: 64 / 16
  EXPECT_TRUE(stretched.group_by_best);
  EXPECT_FALSE(stretched.normalize_weights);
  const ModelConfig greedy = read_hugging_face_config(with(yarn, "group_limited_greedy", "greedy"));
  EXPECT_EQ(greedy.expert_groups, 1);
}

TEST(HuggingFaceConfig, MistralWithoutAWindowIsALlama) {
  const std::string llama = write_hugging_face_config(small_config(Architecture::llama), {});
  const std::string text = with(llama, "\"model_type\": \"llama\"", "\"model_type\": \"mistral\"");
  EXPECT_EQ(read_hugging_face_config(with(text, "{", "{\"sliding_window\": null,")).architecture, Architecture::llama);
  EXPECT_THROW(read_hugging_face_config(with(text, "{", "{\"sliding_window\": 4096,")), Error);
  EXPECT_NE(refusal(text).find("sliding_window"), std::string::npos) << "absent, it means 4096";
}

// What transformers 4.57 and 5.24 take for a key that is not there, or null.
TEST(HuggingFaceConfig, AbsentAndNullMeanWhatTransformersTakes) {
  const std::string v3 = write_hugging_face_config(small_config(Architecture::deepseek_v3), {});
  const auto without = [&](const std::string& key) {
    return read_hugging_face_spec(with(v3, "\"" + key + "\"", "\"was\""));
  };
  EXPECT_EQ(without("routed_scaling_factor").routed_scale, 2.5);
  EXPECT_EQ(without("n_group").expert_groups, 8);
  EXPECT_EQ(without("topk_group").expert_topk_groups, 4);
  EXPECT_TRUE(without("norm_topk_prob").normalize_weights);
  const auto null = [&](const std::string& key) {
    return with(v3, "\"" + key + "\"", "\"" + key + "\": null, \"was\"");
  };
  EXPECT_FALSE(read_hugging_face_spec(null("norm_topk_prob")).normalize_weights);
  EXPECT_NE(refusal(null("rope_interleave")).find("rope_interleave = null"), std::string::npos);
  const std::string v2 = write_hugging_face_config(small_config(Architecture::deepseek_v2), {});
  EXPECT_EQ(read_hugging_face_spec(with(v2, "\"routed_scaling_factor\"", "\"was\"")).routed_scale, 1);
}

// Two keys for one thing: readers differ in which of them they take.
TEST(HuggingFaceConfig, KeysThatContradictEachOtherAreRefused) {
  const std::string llama = write_hugging_face_config(small_config(Architecture::llama), {});
  const std::string yarn = write_hugging_face_config(small_config(Architecture::deepseek_v2), {});
  const std::string scaling = yarn.substr(yarn.find("\"rope_scaling\": ") + 16);
  const std::string object = scaling.substr(0, scaling.find('}') + 1);
  const auto front = [](const std::string& text, const std::string& keys) { return with(text, "{", "{" + keys + ","); };
  EXPECT_EQ(read_hugging_face_config(front(yarn, "\"rope_parameters\": " + object)).rope_factor, 4);
  EXPECT_EQ(read_hugging_face_config(front(yarn, "\"original_max_position_embeddings\": 16")).rope_factor, 4);
  EXPECT_EQ(read_hugging_face_config(front(llama, "\"is_causal\": true")).layers, 2);
  for (const auto& [text, key] :
       {std::pair(front(yarn, "\"rope_parameters\": {\"rope_type\": \"default\"}"), "rope_scaling"),
        std::pair(front(yarn, "\"original_max_position_embeddings\": 32"), "original_max_position_embeddings"),
        std::pair(with(yarn, "\"type\": \"yarn\"", "\"type\": \"default\""), "type"),
        std::pair(with(yarn, "\"mscale\"", "\"was\""), "mscale"),
        std::pair(front(llama, "\"is_causal\": false"), "is_causal"),
        std::pair(front(llama, "\"partial_rotary_factor\": 0.5"), "partial_rotary_factor")}) {
    EXPECT_NE(refusal(text).find(std::string(key) + " = "), std::string::npos) << key << ": " << refusal(text);
  }
}

TEST(HuggingFaceConfig, EveryEndOfTextIsKept) {
  const std::string text =
      write_hugging_face_config(small_config(Architecture::llama), {.bos_token = 7, .eos_tokens = {3, 1, 4}});
  const ModelFileFacts facts = read_hugging_face_facts(text);
  EXPECT_EQ(facts.bos_token, 7);
  EXPECT_EQ(facts.eos_tokens, (std::vector<std::int64_t>{3, 1, 4}));
}

TEST(HuggingFaceConfig, AnotherQuantisationIsRefused) {
  const std::string good = write_hugging_face_config(small_config(Architecture::llama), {.fp8_block = 128});
  EXPECT_EQ(read_hugging_face_facts(good).fp8_block, 128);
  for (const auto& [from, to] : {std::pair("\"fp8\"", "\"awq\""), std::pair("\"e4m3\"", "\"e5m2\""),
                                 std::pair("\"dynamic\"", "\"static\""), std::pair("weight_block_size", "was")}) {
    EXPECT_THROW(read_hugging_face_facts(with(good, from, to)), Error) << to;
  }
}

TEST(HuggingFaceConfig, HostileFilesAreRefused) {
  const std::string good = write_hugging_face_config(small_config(Architecture::llama), {});
  for (const std::string& bad :
       {std::string("not json"), std::string("[]"), std::string("{}"), std::string(100000, '['),
        with(good, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": -2"),
        with(good, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e30"),
        with(good, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 18446744073709551615"),
        with(good, "\"hidden_size\": 24", "\"hidden_size\": \"24\""),
        with(good, "\"hidden_size\": 24", "\"hidden_size\": null"),
        with(good, "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""),
        with(good, "\"attention_bias\": false", "\"attention_bias\": true"),
        with(good, "\"model_type\": \"llama\"", "\"model_type\": \"mixtral\""),
        with(good, "\"rope_type\": \"llama3\"", "\"rope_type\": \"linear\""),
        with(good, "\"rope_type\": \"llama3\"", "\"full_attention\": {}"),
        with(good, "\"rope_type\": \"llama3\"", "\"rope_type\": \"llama3\", \"rope_theta\": 7.5"),
        with(good, "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0"),
        with(good, "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e308"),
        with(good, "\"max_position_embeddings\": ", "\"max_position_embeddings\": 0, \"was\": "),
        with(good, "\"hidden_size\": 24", "\"hidden_size\": 24, \"hidden_size\": 48"),
        // Brackets inside a text are no nesting, and must not hide what is.
        with(good, "\"hidden_size\": 24",
             "\"a\": \"" + std::string(100000, ']') + "\", \"hidden_size\": " + std::string(100000, '[') +
                 std::string(100000, ']'))}) {
    try {
      read_hugging_face_config(bad);
      ADD_FAILURE() << "accepted: " << bad.substr(0, 80);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
