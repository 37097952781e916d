#include "tools/bench/made_shard.h"

#include <cmath>
#include <vector>

#include "data/shard_writer.h"
#include "kernels/base/random.h"

namespace shoestring {

void write_made_shard(const std::string& path, std::uint64_t tokens, std::uint64_t seed) {
  constexpr std::uint32_t kVocabulary = 129280;
  constexpr std::uint32_t kEnd = 1;
  const Random random(seed, Purpose::test);
  ShardWriter writer(path, {kVocabulary, kEnd, "bench", "bench"});
  std::vector<std::uint32_t> document;
  for (std::uint64_t index = 0; writer.tokens() < tokens; ++index) {
    document.resize(1 + static_cast<std::size_t>(520 * std::exp(1.1 * random.normal(index))));
    const std::uint32_t start = random.bits(index).word[0];
    for (std::uint32_t at = 0; at < document.size(); ++at)
      document[at] = 2 + (start + at * 2654435761u) % (kVocabulary - 2);
    writer.append(document);
  }
  writer.finish();
}

}  // namespace shoestring
