#include "tools/bench/cuda_clock.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "kernels/base/copy.h"
#include "kernels/base/event.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr int kRepetitions = 21;

}  // namespace

Clock::Clock(Stream& on, DeviceProperties properties, std::int64_t flush_bytes, TimingObserver told)
    : stream(on),
      observer_(std::move(told)),
      from_(DType::u8, {flush_bytes}, on.device()),
      to_(DType::u8, {flush_bytes}, on.device()),
      properties_(std::move(properties)) {}

void Clock::add(CudaTiming timing) {
  timings.push_back(std::move(timing));
  if (observer_) observer_(timings.back());
}

double Clock::median_seconds(const std::function<void()>& body) {
  body();  // the first call chooses variants and algorithms
  std::vector<double> seconds;
  for (int i = 0; i < kRepetitions; ++i) {
    Event begin(stream.device());
    Event end(stream.device());
    copy(to_, from_, stream);
    begin.record(stream);
    body();
    end.record(stream);
    end.synchronize();
    seconds.push_back(begin.seconds_until(end));
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepetitions / 2, seconds.end());
  return seconds[kRepetitions / 2];
}

void Clock::time(std::string name, double bytes, double flops, double flops_per_clock,
                 const std::function<void()>& body) {
  CudaTiming timing{.name = std::move(name)};
  try {
    const double median = median_seconds(body);
    const double peak = flops_per_clock * properties_.multiprocessors * properties_.clock_hz;
    const double moving = bytes / properties_.memory_bytes_per_second;
    const double computing = flops > 0 ? flops / peak : 0;
    timing.seconds = median;
    timing.floor_seconds = std::max(moving, computing);
    timing.bytes_per_second = bytes / median;
    timing.flops_per_second = flops / median;
  } catch (const std::exception& error) {
    timing.error = error.what();
  }
  add(std::move(timing));
  stream.synchronize();  // a body that threw may have enqueued work on tensors that now die
}

void Clock::part(const std::string& name, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    add({.name = name, .error = error.what()});
  }
}

Tensor random_on(Stream& stream, DType dtype, const Shape& shape) {
  const Tensor host = numbers(dtype, {std::min<std::int64_t>(shape.elements(), 1 << 16)}, 3);
  Tensor tensor(dtype, shape, stream.device());
  const TensorView flat = tensor.view().reshaped({shape.elements()});
  for (std::int64_t at = 0; at < shape.elements(); at += 1 << 16) {
    const std::int64_t count = std::min<std::int64_t>(shape.elements() - at, 1 << 16);
    copy(flat.slice(0, at, count), host.view().slice(0, 0, count), stream);
  }
  stream.synchronize();
  return tensor;
}

}  // namespace shoestring::cuda_compare
