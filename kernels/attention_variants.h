// What the variants of attention share. Not for their callers: see attention.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "kernels/attention.h"
#include "kernels/base/dtype.h"

namespace shoestring::attention {

struct Document {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t tokens() const { return end - begin; }
};

/// The documents of a micro-batch in token order, held in scratch.
class Documents {
 public:
  Documents(const ConstTensorView& segment_start, Arena& scratch);
  std::int64_t count() const { return count_; }
  std::int64_t longest() const { return longest_; }
  Document operator[](std::int64_t index) const { return {starts_[index], starts_[index + 1]}; }

 private:
  std::int32_t* starts_ = nullptr;  // one more than documents
  std::int64_t count_ = 0;
  std::int64_t longest_ = 0;
};

/// Query rows of one unit of forward work: keys are packed once for that many.
inline constexpr std::int64_t kForwardRows = 1024;

/// Extents every variant works with. `longest` is rounded up to 32 tokens, dims to 32 elements.
struct Extents {
  std::int64_t longest = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
  std::int64_t group() const { return heads / kv_heads; }
};
Extents padded_extents(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                       std::int64_t longest);

inline std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }

/// Runs body(worker, item) for every item, handed out one by one; a worker's scratch is its own.
void each_with_worker(Workers& workers, std::int64_t items,
                      const std::function<void(int worker, std::int64_t item)>& body);

namespace reference {
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);
}  // namespace reference

namespace simd {
std::string refuses(const AttentionArgs& args);
std::string refuses(const AttentionBackwardArgs& args);
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);
/// Bytes of scratch one worker needs, at most.
std::int64_t worker_bytes(const Extents& extents);
}  // namespace simd

namespace amx {
std::string refuses(const AttentionArgs& args);
std::string refuses(const AttentionBackwardArgs& args);
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);
std::int64_t worker_bytes(const Extents& extents);
std::int64_t backward_bytes(const Extents& extents);
}  // namespace amx

}  // namespace shoestring::attention
