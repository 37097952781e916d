// What a vector row gave where it was recorded: any processor must give the same bits, whatever its vectors.
#pragma once

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstdint>
#include <initializer_list>

#include "kernels/base/tensor.h"

namespace shoestring::testing {

/// XXH3 of the bytes of contiguous tensors, one behind the other. What goes in may not come from functions of the C
/// library (`normal`, `heavy_tailed`): they round as the processor has it.
inline std::uint64_t hash_of(std::initializer_list<ConstTensorView> tensors) {
  std::uint64_t hash = 0;
  for (const ConstTensorView& tensor : tensors) {
    EXPECT_TRUE(tensor.contiguous()) << tensor.to_string();
    hash =
        XXH3_64bits_withSeed(tensor.data, static_cast<std::size_t>(tensor.elements() * size_bytes(tensor.dtype)), hash);
  }
  return hash;
}

}  // namespace shoestring::testing
