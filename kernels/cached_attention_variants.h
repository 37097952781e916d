// What the variants of cached attention share. Not for its callers: see cached_attention.h.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/attention_variants.h"
#include "kernels/cached_attention.h"

namespace shoestring::attention {

/// Writes k and v of all rows where they are kept.
void keep_rows(const CachedAttentionArgs& args);

/// Rows [begin, end) of one slot.
struct CachedRun {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
inline constexpr std::int64_t kCachedRun = 8;  ///< rows of one unit of work, at most

/// The units of work in the order of the rows, held in scratch.
class CachedRuns {
 public:
  CachedRuns(const ConstTensorView& slots, Arena& scratch);
  std::int64_t count() const { return count_; }
  CachedRun operator[](std::int64_t index) const { return {starts_[index], starts_[index + 1]}; }

 private:
  std::int32_t* starts_ = nullptr;  // one more than runs
  std::int64_t count_ = 0;
};

namespace simd {
std::string refuses(const CachedAttentionArgs& args);
void cached(const CachedAttentionArgs& args);
/// Bytes of scratch one worker needs.
std::int64_t cached_worker_bytes(std::int64_t qk_dim, std::int64_t v_dim);
}  // namespace simd

}  // namespace shoestring::attention
