// What the symbol table of this very program says of device code: its kernels, and the variables that stand for shared
// memory. Both are found by name, because neither a kernel nor a `__shared__` array can be made to register itself.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace emulator {

struct Symbol {
  std::string name;  ///< demangled
  void* address = nullptr;
  std::size_t bytes = 0;
};

/// Functions whose name ends in `_kernel`, in a namespace called cuda: every instance of every kernel.
const std::vector<Symbol>& kernels();

/// Writable variables inside functions of a namespace called cuda. Host code of such a namespace has none.
const std::vector<Symbol>& shared_variables();

}  // namespace emulator
