// Logits of a model folder for tests/oracle/import_compare.py.
//
//   import_dump FOLDER TOKENS LOGITS    TOKENS: i32, one document; LOGITS: f32 [tokens, vocabulary], of every position
//
// The folder is imported as a run begins with one, and computed in FP32.
#include <fmt/core.h>

#include <fstream>
#include <vector>

#include "core/model/cached_forward.h"
#include "core/training/import_weights.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "kernels/base/variant.h"
#include "kernels/base/workers.h"

namespace shoestring::testing {
namespace {

std::vector<std::int32_t> read_tokens(const char* path) {
  const std::string bytes = read_file(path, std::int64_t{1} << 24);
  std::vector<std::int32_t> tokens(bytes.size() / sizeof(std::int32_t));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(tokens.data()));
  return tokens;
}

void dump(const char* place, const char* tokens_file, const char* logits_file) {
  const std::vector<std::int32_t> tokens = read_tokens(tokens_file);
  const auto count = static_cast<std::int64_t>(tokens.size());
  const ImportFolder folder(place);
  ModelConfig config = folder.config();
  config.max_positions = count;
  PrecisionSpec precision;
  precision.policy = PrecisionPolicy::fp32;
  allow_reference(!cpu_features().vectors());
  Workers workers(2);
  Stream stream(workers);
  Transformer model({.model = config,
                     .precision = precision,
                     .run = {.tokens = count, .sequences = 1, .workers = workers.count()},
                     .stages = 1,
                     .own_stages = {},
                     .count_precision = false,
                     .trains = false});
  const ImportPlan plan = plan_import(folder, model);
  model.allocate(stream);
  import_weights(plan);
  model.prepare();

  CachedForward forward(model, {.slots = 1, .capacity = count, .rows = count});
  forward.append(std::vector<CachedForward::Piece>{{0, tokens}});
  std::ofstream out(logits_file, std::ios::binary);
  for (std::int32_t row = 0; row < count; ++row) {
    const std::vector<float> logits = forward.logits(std::vector<std::int32_t>{row}).front();
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
  }
  if (!out.flush()) fail(ExitCode::io, "cannot write {}", logits_file);
}

}  // namespace
}  // namespace shoestring::testing

int main(int argc, char** argv) {
  try {
    if (argc != 4) shoestring::fail(shoestring::ExitCode::usage, "import_dump FOLDER TOKENS LOGITS");
    shoestring::testing::dump(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const shoestring::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
