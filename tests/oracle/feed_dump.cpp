// What a run reads, for finetune_compare.py:  feed_dump SHARDS SEQUENCE SEED SAMPLES tokens|documents
//
// Of each sample its inputs, targets and segment starts (counted from the sample's first token), as little-endian i32,
// then its weights, as f32. Long documents are dropped, as in a masked phase.
#include <fmt/core.h>

#include <cstdio>
#include <string>

#include "data/loader.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

void write(const void* data, std::size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes) fail(ExitCode::io, "standard output: cannot write");
}

void dump(char** words) {
  LoaderOptions options;
  options.sources = {{words[1], {words[1]}, 1}};
  options.sequence = std::stoll(words[2]);
  options.seed = std::stoull(words[3]);
  options.long_documents = LongDocuments::drop;
  options.weights = std::string(words[5]) == "documents" ? TokenWeights::documents : TokenWeights::tokens;
  const Loader loader(options);
  Batch batch;
  for (std::int64_t sample = 0; sample < std::stoll(words[4]); ++sample) {
    loader.fetch({sample, 1}, batch);
    write(batch.inputs.data(), batch.inputs.size() * 4);
    write(batch.targets.data(), batch.targets.size() * 4);
    write(batch.segment_start.data(), batch.segment_start.size() * 4);
    write(batch.weights.data(), batch.weights.size() * 4);
  }
}

}  // namespace
}  // namespace shoestring

int main(int count, char** words) {
  if (count != 6) return 64;
  try {
    shoestring::dump(words);
    return 0;
  } catch (const std::exception& exception) {
    const shoestring::Error error = shoestring::as_error(exception);
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
