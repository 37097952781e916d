// Inside of gemm, not for other code: which worker does which item.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

#include "kernels/base/memory.h"

namespace shoestring::gemm_detail {

/// Items handed out to workers: each has a contiguous share, so that it finds in its cache what it wrote or read for
/// the neighbouring item (quantised rows, an expert's panels), and helps with the others' shares afterwards.
class Shares {
 public:
  /// Takes kShareBytes for each worker from `scratch`.
  Shares(std::int64_t items, int workers, Arena& scratch)
      : items_(items),
        workers_(workers),
        next_(static_cast<Next*>(scratch.take(DType::u8, {Shares::bytes(workers)}).data)) {
    for (int worker = 0; worker < workers; ++worker) new (next_ + worker) Next{{begin(worker)}};
  }
  static std::int64_t bytes(int workers) { return workers * static_cast<std::int64_t>(sizeof(Next)); }

  /// Calls body(item) until nothing is left.
  template <class Body>
  void work(int worker, const Body& body) {
    for (int turn = 0; turn < workers_; ++turn) {
      const int share = (worker + turn) % workers_;
      std::atomic<std::int64_t>& next = next_[share].item;
      for (std::int64_t item = next.fetch_add(1); item < begin(share + 1); item = next.fetch_add(1)) body(item);
    }
  }

 private:
  struct alignas(64) Next {
    std::atomic<std::int64_t> item;
  };
  std::int64_t begin(int share) const { return items_ * share / workers_; }

  std::int64_t items_;
  int workers_;
  Next* next_;
};

}  // namespace shoestring::gemm_detail
