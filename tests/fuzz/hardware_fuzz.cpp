#include "core/budget/hardware.h"

#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] { read_hardware(file.path()); });
}

}  // namespace shoestring::fuzz
