#include "core/training/safetensors.h"

#include <vector>

#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] {
    const SafetensorsFile tensors(file.path());
    std::int64_t sum = 0;
    for (const auto& [name, entry] : tensors.entries()) {
      std::vector<char> content(static_cast<std::size_t>(entry.bytes));
      tensors.read_bytes(entry.begin, content.data(), entry.bytes);
      sum += entry.bytes;
    }
    if (sum > static_cast<std::int64_t>(bytes.size())) contradiction("tensors hold more than their file");
  });
}

}  // namespace shoestring::fuzz
