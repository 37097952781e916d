#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "core/optimizer/optimizer.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/newton_schulz.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

/// From this size on, all workers share a matrix; smaller ones are handed out whole, one to each worker.
constexpr std::int64_t kSharedElements = std::int64_t{1} << 20;

DType product_format(DType master) { return master == DType::f64 ? DType::f64 : DType::bf16; }

bool is_shared(std::int64_t rows, std::int64_t columns, int workers) {
  return workers == 1 || rows * columns >= kSharedElements;
}

/// The disk tensors of a part.
std::vector<const ParameterSlice*> slices_of(const ParameterPart& part) {
  std::vector<const ParameterSlice*> slices;
  std::int64_t elements = 0;
  const std::int64_t columns = part.parameter->columns;
  for (const ParameterSlice& slice : part.parameter->slices) {
    const std::int64_t begin = slice.begin * columns;
    const std::int64_t end = begin + slice.rows * columns;
    if (begin < part.begin || end > part.begin + part.elements) continue;
    slices.push_back(&slice);
    elements += end - begin;
  }
  check(elements == part.elements, "Muon is given {} of the elements of {}, which are no whole tensors", part.elements,
        part.parameter->slices.front().name);
  return slices;
}

/// A worker that moves matrices of its own.
struct Owner {
  Workers alone{1};
  Stream stream{alone};
  Arena scratch;
};

class Muon : public Optimizer {
 public:
  /// On a device one matrix is moved after the other, as by one worker.
  Muon(const OptimizerSpec& spec, MomentFormat moments, const std::vector<ParameterPart>& parts, int given_workers)
      : spec_(spec) {
    const Device device = parts.empty() ? Device{} : parts.front().parameter->value.device;
    const int workers = workers_ = device.kind == DeviceKind::cpu ? given_workers : 1;
    for (const ParameterPart& part : parts) {
      format_ = part.parameter->value.dtype;
      const DType dtype = format_ == DType::f64 ? DType::f64 : moments == MomentFormat::bf16 ? DType::bf16 : DType::f32;
      const std::int64_t columns = part.parameter->columns;
      Momentum& entry = moments_.emplace_back(
          Momentum{part, slices_of(part), state_memory(spec, part.elements * size_bytes(dtype), device), {}});
      entry.momentum = view_of(entry.memory.data(), dtype, {part.elements / columns, columns}, entry.memory.device());
      visits_ = visits_ || entry.memory.device() != device;
    }
    for (Momentum& entry : moments_) {
      for (const ParameterSlice* slice : entry.slices) {
        const bool shared = is_shared(slice->rows, entry.part.parameter->columns, workers);
        (shared ? shared_ : own_).push_back({&entry, slice});
      }
    }
    scratch_ = Arena(scratch_for(shared_, device, workers), device);
    const std::int64_t own_bytes = scratch_for(own_, device, 1);
    for (int i = 0; i < std::min(workers, static_cast<int>(own_.size())); ++i) {
      owners_.push_back(std::make_unique<Owner>());
      owners_.back()->scratch = Arena(own_bytes, device);
    }
    std::ranges::stable_sort(own_, std::greater(), &Matrix::elements);  // the last ones handed out are short
  }

  void step(const OptimizerStep& step, Stream& stream) override {
    const bool on_cpu = stream.device().kind == DeviceKind::cpu;
    check(!on_cpu || stream.worker_count() == workers_, "Muon was made for {} workers, not {}", workers_,
          stream.worker_count());
    for (const Matrix& matrix : shared_) move(matrix, step, scratch_, stream);
    if (visits_) wait_for(stream, WaitCause::host_state, step.waits);
    if (own_.empty()) return;
    std::atomic<std::size_t> next{0};
    stream.workers().run([&](int worker) {
      if (worker >= static_cast<int>(owners_.size())) return;
      Owner& owner = *owners_[static_cast<std::size_t>(worker)];
      for (std::size_t i = next++; i < own_.size(); i = next++) move(own_[i], step, owner.scratch, owner.stream);
    });
  }

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    for (Momentum& entry : moments_) {
      for (const ParameterSlice* slice : entry.slices) {
        all.push_back({.name = "momentum." + slice->name, .data = entry.of(*slice)});
      }
    }
    return all;
  }

  std::int64_t state_bytes() const override {
    std::int64_t bytes = 0;
    for (const Momentum& entry : moments_) bytes += entry.momentum.bytes();
    return bytes;
  }

 private:
  struct Momentum {
    ParameterPart part;
    std::vector<const ParameterSlice*> slices;
    Storage memory;
    TensorView momentum;  // [rows, columns]

    TensorView of(const ParameterSlice& slice) const {
      return momentum.slice(0, slice.begin - part.begin / part.parameter->columns, slice.rows);
    }
  };
  /// What is orthogonalised by itself: one tensor on the disk.
  struct Matrix {
    Momentum* entry;
    const ParameterSlice* slice;
    std::int64_t elements() const { return slice->rows * entry->part.parameter->columns; }
  };

  /// Scratch to move any of these: found by a dry run for each shape.
  std::int64_t scratch_for(const std::vector<Matrix>& matrices, Device device, int workers) const {
    std::int64_t most = 0;
    std::set<std::pair<std::int64_t, std::int64_t>> seen;
    for (const Matrix& matrix : matrices) {
      if (!seen.emplace(matrix.slice->rows, matrix.entry->part.parameter->columns).second) continue;
      DryMemory dry;
      Stream stream({.kind = device.kind, .dry = &dry}, workers);
      Arena scratch(0, stream.device());
      move(matrix, {}, scratch, stream);
      most = std::max(most, scratch.peak_bytes());
    }
    return most;
  }

  void move(const Matrix& matrix, const OptimizerStep& step, Arena& scratch, Stream& stream) const {
    const auto rows_of = [&](TensorView whole) { return whole.slice(0, matrix.slice->begin, matrix.slice->rows); };
    const TensorView home = matrix.entry->of(*matrix.slice);
    const TensorView weight = rows_of(matrix.entry->part.parameter->value);
    const ConstTensorView gradient = rows_of(matrix.entry->part.parameter->grad);
    const Arena::Scope scope(scratch);
    const TensorView update = scratch.take(format_, weight.shape);
    const bool visits = !(home.device == weight.device);
    const TensorView momentum = visits ? TensorView(scratch.take(home.dtype, home.shape)) : home;
    if (visits) copy(momentum, home, stream);

    axpby(momentum, spec_.muon_momentum, momentum, step.gradient_scale, gradient, stream);
    // Nesterov: the update looks one momentum step ahead.
    axpby(update, spec_.muon_momentum, momentum, step.gradient_scale, gradient, stream);
    if (visits) copy(home, momentum, stream);
    newton_schulz({.update = update,
                   .matrix = update,
                   .steps = spec_.muon_iterations,
                   .product = product_format(format_),
                   .scratch = scratch,
                   .stream = stream});
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(weight.shape[0], weight.shape[1])));
    const double decay = 1.0 - step.learning_rate * spec_.weight_decay;
    axpby(weight, decay, weight, -step.learning_rate * size, update, stream);
  }

  OptimizerSpec spec_;
  int workers_;
  DType format_ = DType::f32;
  std::vector<Momentum> moments_;
  std::vector<Matrix> shared_;
  std::vector<Matrix> own_;
  std::vector<std::unique_ptr<Owner>> owners_;
  bool visits_ = false;  // momentum is in host memory while its weight is on a device
  Arena scratch_;        // of what is shared
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(const OptimizerSpec& spec, MomentFormat moments,
                                     const std::vector<ParameterPart>& parts, int workers) {
  return std::make_unique<Muon>(spec, moments, parts, workers);
}

}  // namespace shoestring
