#include "parallel/placement.h"

#include <xxhash.h>

#include <algorithm>
#include <vector>

namespace shoestring {

int ranks_sharing(Communicator& world, std::string_view name) {
  std::int64_t mine = static_cast<std::int64_t>(XXH3_64bits(name.data(), name.size()));
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather(view_of(all.data(), DType::i64, {world.size()}), view_of(&mine, DType::i64, {1}));
  return static_cast<int>(std::count(all.begin(), all.end(), mine));
}

}  // namespace shoestring
