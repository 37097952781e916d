// Times ops on one device; what cannot be timed is kept with its reason beside what can.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "tools/bench/cuda_check_bench.h"

namespace shoestring::cuda_compare {

class Clock {
 public:
  /// `flush_bytes`, several times the size of the last cache, are copied before each repetition. `on` makes the floors.
  Clock(Stream& on, DeviceProperties properties, std::int64_t flush_bytes, TimingObserver told);

  /// Times `body`, which enqueues on `stream` an op that moves `bytes` and computes `flops`, a multiprocessor
  /// `flops_per_clock` at most. Where it throws, the timing says why instead.
  void time(std::string name, double bytes, double flops, double flops_per_clock, const std::function<void()>& body);

  /// Runs `body`, which times a group of ops; what keeps it from doing so is a timing of this name without figures.
  void part(const std::string& name, const std::function<void()>& body);

  Stream& stream;
  std::vector<CudaTiming> timings;

 private:
  void add(CudaTiming timing);
  double median_seconds(const std::function<void()>& body);

  TimingObserver observer_;
  Tensor from_;
  Tensor to_;
  DeviceProperties properties_;
};

/// Numbers of a real kind on the stream's device, repeated every 2^16 elements.
Tensor random_on(Stream& stream, DType dtype, const Shape& shape);

/// The ops of a model beside quantisation, norms and products.
void time_blocks(Clock& clock);

}  // namespace shoestring::cuda_compare
