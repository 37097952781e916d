// A compressed file, as `data build` reads one: gzip, zstd, xz and bzip2 by their first bytes.
#include "data/input_file.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  constexpr std::int64_t kFree = std::int64_t{1} << 20;
  constexpr double kRatio = 100;
  bounded(bytes,
          [&] {
            InputFile input(file.path(), {.ratio = kRatio, .free_bytes = kFree});
            std::size_t out = 0;
            for (std::string_view ahead = input.ahead(); !ahead.empty(); ahead = input.ahead()) {
              out += ahead.size();
              input.consume(ahead.size());
            }
            const double most = static_cast<double>(kFree) + kRatio * static_cast<double>(bytes.size()) + (8 << 20);
            if (static_cast<double>(out) > most) contradiction("more came out than the limit allows");
          },
          {.memory_bytes = std::int64_t{300} << 20});  // what one unpacker may hold, and what it reads
}

}  // namespace shoestring::fuzz
