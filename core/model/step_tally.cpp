#include "core/model/step_tally.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/base/copy.h"
#include "kernels/fill.h"

namespace shoestring {

StepTally::StepTally(std::int64_t mixtures, std::int64_t experts, bool count_precision, Device device)
    : balance_losses(static_cast<std::size_t>(mixtures), 0.0), counts_precision_(count_precision) {
  if (mixtures > 0) expert_loads = Tensor(DType::i64, {mixtures, experts});
  if (device.kind == DeviceKind::cpu) return;
  static_assert(sizeof(Sums) % sizeof(std::int64_t) == 0);
  sums_there_ = Tensor(DType::i64, {static_cast<std::int64_t>(sizeof(Sums) / sizeof(std::int64_t))}, device);
  if (mixtures == 0) return;
  balance_there_ = Tensor(DType::f64, {mixtures}, device);
  loads_there_ = Tensor(DType::i64, {mixtures, experts}, device);
}

void StepTally::clear(Stream& stream) {
  objective = {};
  precision = {};
  waits = {};
  std::fill(balance_losses.begin(), balance_losses.end(), 0.0);
  if (!expert_loads.empty()) std::memset(expert_loads.view().data, 0, static_cast<std::size_t>(expert_loads.bytes()));
  for (Tensor* there : {&sums_there_, &balance_there_, &loads_there_}) {
    if (!there->empty()) fill(there->view(), 0, stream);
  }
}

QuantizeCounts* StepTally::activations() {
  if (!counts_precision_) return nullptr;
  return sums_there_.empty() ? &precision.activations : &there()->precision.activations;
}

QuantizeCounts* StepTally::gradients() {
  if (!counts_precision_) return nullptr;
  return sums_there_.empty() ? &precision.gradients : &there()->precision.gradients;
}

TensorView StepTally::loads_of(std::int64_t mixture) {
  Tensor& loads = loads_there_.empty() ? expert_loads : loads_there_;
  return loads.view().slice(0, mixture, 1).reshaped({loads.shape()[1]});
}

TensorView StepTally::balance_of(std::int64_t mixture) {
  if (!balance_there_.empty()) return balance_there_.view().slice(0, mixture, 1);
  return view_of(&balance_losses.at(static_cast<std::size_t>(mixture)), DType::f64, {1});
}

ObjectiveTotals StepTally::totals(ObjectiveSums& here) {
  ObjectiveSums& sums = sums_there_.empty() ? here : there()->objective;
  const Device device = sums_there_.view().device;
  const auto of = [&](LossSum& sum) {
    return LossTotals{view_of(&sum.loss, DType::f64, {1}, device), view_of(&sum.tokens, DType::i64, {1}, device),
                      view_of(&sum.weight, DType::f64, {1}, device)};
  };
  return {of(sums.main), of(sums.further)};
}

std::int64_t StepTally::bytes() const {
  return static_cast<std::int64_t>(sizeof(Sums) + balance_losses.size() * sizeof(double)) + expert_loads.bytes();
}

// The sums, then balance losses, then loads.
void StepTally::send(Storage& to, Stream& stream) const {
  if (to.bytes() < bytes()) to = Storage::pinned(bytes(), stream.device().dry);
  if (stream.dry()) return;
  auto* next = static_cast<char*>(to.data());
  const auto put = [&](DType dtype, const ConstTensorView& from) {
    copy(view_of(static_cast<void*>(next), dtype, from.shape), from, stream);
    next += from.bytes();
  };
  if (sums_there_.empty()) {
    *reinterpret_cast<Sums*>(next) = {objective, precision};
    next += sizeof(Sums);
  } else {
    put(DType::i64, sums_there_);
  }
  if (expert_loads.empty()) return;
  const auto count = static_cast<std::int64_t>(balance_losses.size());
  put(DType::f64, balance_there_.empty() ? view_of(static_cast<const void*>(balance_losses.data()), DType::f64, {count})
                                         : balance_there_.view());
  put(DType::i64, loads_there_.empty() ? expert_loads.view() : loads_there_.view());
}

void StepTally::receive(const Storage& from) {
  if (from.device().dry != nullptr) return;
  const auto* next = static_cast<const char*>(from.data());
  const auto get = [&](void* to, std::size_t size) {
    std::memcpy(to, next, size);
    next += size;
  };
  Sums sums;
  get(&sums, sizeof(sums));
  objective = sums.objective;
  precision = sums.precision;
  if (expert_loads.empty()) return;
  get(balance_losses.data(), balance_losses.size() * sizeof(double));
  get(expert_loads.view().data, static_cast<std::size_t>(expert_loads.bytes()));
}

void StepTally::collect(Stream& stream) {
  if (sums_there_.empty()) return;
  Storage here;
  send(here, stream);
  stream.synchronize();
  receive(here);
}

double StepTally::balance_loss() const { return std::accumulate(balance_losses.begin(), balance_losses.end(), 0.0); }

QuantizeCounts& operator+=(QuantizeCounts& counts, const QuantizeCounts& more) {
  counts.elements += more.elements;
  counts.saturated += more.saturated;
  counts.underflowed += more.underflowed;
  counts.non_finite += more.non_finite;
  counts.amax = std::max(counts.amax, more.amax);
  return counts;
}

PrecisionCounts& operator+=(PrecisionCounts& counts, const PrecisionCounts& more) {
  counts.activations += more.activations;
  counts.weights += more.weights;
  counts.gradients += more.gradients;
  return counts;
}

}  // namespace shoestring
