// A token shard. Mutated at random it fails at a checksum; so the checksums of HDF5's metadata are made right after
// every mutation, as who forges a file would.
#include "data/shard.h"

#include <algorithm>
#include <vector>

#include "tests/data/shard_checksums.h"
#include "tests/fuzz/target.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most) __attribute__((weak));
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, most);
  if (seed % 8 == 0) return size;
  std::vector<char> file(data, data + size);
  for (const auto& piece : shoestring::testing::metadata_pieces(file)) shoestring::testing::repair(file, piece);
  std::copy(file.begin(), file.end(), data);
  return size;
}

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] {
    const Shard shard = Shard::open(file.path().string(), {.io = ShardIo::pread});
    const std::uint64_t tokens = shard.info().tokens;
    std::vector<std::int32_t> out(std::min<std::uint64_t>(tokens, 1024));
    for (std::uint64_t begin = 0; begin < tokens; begin += out.size()) {
      shard.read(begin, std::min<std::uint64_t>(out.size(), tokens - begin), out.data());
    }
    if (!shard.doc_ends().empty() && shard.doc_ends().back() > tokens)
      contradiction("a document ends behind the tokens");
  });
}

}  // namespace shoestring::fuzz
