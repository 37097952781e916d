// Writes a small model for tests/oracle/model_compare.py: weights, a batch with documents inside, loss and gradients.
//
//   model_dump ARCHITECTURE FOLDER    one of llama, qwen2, qwen3, qwen3_moe, deepseek_v2, deepseek_v3,
//   deepseek_v3_direct (no
//                                     query latent, no YaRN)
//
// FOLDER gets config.json, dump.json, values.f64, gradients.f64, logits.f32. Everything is computed in double. The
// sequence-wise balance loss is off: the readers do not have it.
#include <fmt/core.h>

#include <cstdio>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "core/model/cached_forward.h"
#include "core/model/hugging_face_config.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

ModelConfig config_named(const std::string& wanted) {
  for (const Architecture architecture :
       {Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::qwen3_moe,
        Architecture::deepseek_v2, Architecture::deepseek_v3}) {
    if (!wanted.starts_with(name(architecture))) continue;
    const bool direct = wanted == "deepseek_v3_direct";
    if (wanted != name(architecture) && !direct) continue;
    ModelSpec spec = small_spec(architecture);
    spec.balance_loss = 0;
    if (direct) {
      spec.q_lora_rank = 0;
      spec.rope_scaling = RopeScalingKind::none;
    }
    return resolve_model(spec, 0, 0);
  }
  fail(ExitCode::usage, "no architecture {}", wanted);
}

void write_file(const std::string& path, const void* data, std::size_t bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  if (!file.flush()) fail(ExitCode::io, "cannot write {}", path);
}

void dump(const std::string& architecture, const std::string& folder) {
  SmallRun run(config_named(architecture), policy(PrecisionPolicy::fp64));
  for (const Parameter* parameter : run.model.parameters()) {
    if (parameter->role != ParameterRole::statistic) continue;
    // Selection biases, as training moves them. Positive: transformers masks groups that are not chosen with 0.
    for (std::int64_t e = 0; e < parameter->rows; ++e) {
      parameter->value.as<double>()[e] = 0.02F * static_cast<float>((5 * e) % parameter->rows);
    }
  }
  const ObjectiveSums sums = run.step().objective;
  nlohmann::json index;
  const auto* values = run.model.store().values.as<double>();
  const auto* gradients = run.model.store().gradients.as<double>();
  for (const Parameter* parameter : run.model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      nlohmann::json tensor;
      tensor["name"] = slice.name;
      for (int d = 0; d < slice.shape.rank(); ++d) tensor["shape"].push_back(slice.shape[d]);
      tensor["offset"] = parameter->value.as<double>() - values + slice.begin * parameter->columns;
      tensor["trained"] = parameter->role != ParameterRole::statistic;
      index["tensors"].push_back(tensor);
    }
  }
  index["inputs"] = run.batch.inputs;
  index["targets"] = run.batch.targets;
  index["segment_start"] = run.batch.segment_start;
  index["sequence"] = run.batch.sequence_length;
  index["loss"] = sums.main.loss;
  index["tokens"] = sums.main.tokens;
  index["further_loss"] = sums.further.loss;
  index["further_tokens"] = sums.further.tokens;
  index["further_weight"] = run.model.config().mtp_weight;
  const std::vector<std::int32_t> prefix(run.batch.inputs.begin(), run.batch.inputs.begin() + 9);
  CachedForward forward(run.model, {.slots = 1, .capacity = 9, .rows = 9});
  const std::vector<std::int32_t> last{8};
  forward.append(std::vector<CachedForward::Piece>{{0, prefix}});
  const std::vector<float> logits = forward.logits(last).front();
  index["prefix"] = prefix;

  const std::string text = index.dump(1);
  write_file(folder + "/dump.json", text.data(), text.size());
  const std::string config =
      write_hugging_face_config(run.model.config(), {.bos_token = 0, .eos_tokens = {1}, .torch_dtype = "float64"});
  write_file(folder + "/config.json", config.data(), config.size());
  write_file(folder + "/values.f64", values, static_cast<std::size_t>(run.model.store().values.bytes()));
  write_file(folder + "/gradients.f64", gradients, static_cast<std::size_t>(run.model.store().gradients.bytes()));
  write_file(folder + "/logits.f32", logits.data(), logits.size() * sizeof(float));
}

}  // namespace
}  // namespace shoestring::testing

int main(int argc, char** argv) {
  try {
    if (argc != 3) shoestring::fail(shoestring::ExitCode::usage, "model_dump ARCHITECTURE FOLDER");
    shoestring::testing::dump(argv[1], argv[2]);
    return 0;
  } catch (const shoestring::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
