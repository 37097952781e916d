// oneDNN's matrix product as a rival in the same process.
//
// It lives in a module of its own that is loaded when a bench asks for it: the program does not depend on oneDNN, and
// OpenMP reads OMP_WAIT_POLICY=passive, without which two thread teams spin against each other.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/base/tensor.h"

namespace shoestring {

class OnednnMatmul {
 public:
  /// c [m, n] = a [m, k] * b [n, k]^T, all bf16 or all f32, contiguous; b in oneDNN's own layout where `packed`, made
  /// here. nullptr where the module or oneDNN is missing. The views must outlive it.
  static std::unique_ptr<OnednnMatmul> make(ConstTensorView a, ConstTensorView b, TensorView c, bool packed,
                                            int threads);
  ~OnednnMatmul();
  OnednnMatmul(const OnednnMatmul&) = delete;
  OnednnMatmul& operator=(const OnednnMatmul&) = delete;

  void run() const;

 private:
  explicit OnednnMatmul(void* state) : state_(state) {}
  void* state_;
};

}  // namespace shoestring
