#include "kernels/adamw.h"

#include <algorithm>

#include "core/optimizer/optimizer.h"
#include "kernels/base/copy.h"

namespace shoestring {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 22;  // elements of state that visit a device at a time

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerSpec& spec, MomentFormat moments, const std::vector<ParameterPart>& parts) : spec_(spec) {
    std::int64_t longest = 0;
    for (const ParameterPart& part : parts) {
      const Device device = part.parameter->value.device;
      DType dtype = moments == MomentFormat::bf16 ? DType::bf16 : DType::f32;
      if (part.parameter->value.dtype == DType::f64) dtype = DType::f64;
      const std::int64_t bytes = part.elements * size_bytes(dtype);
      const std::int64_t second = Arena::footprint(bytes);
      Moments& entry = moments_.emplace_back(Moments{part, state_memory(spec, second + bytes, device), {}, {}});
      char* memory = static_cast<char*>(entry.memory.data());
      entry.first = view_of(static_cast<void*>(memory), dtype, {part.elements}, entry.memory.device());
      entry.second = view_of(static_cast<void*>(memory + second), dtype, {part.elements}, entry.memory.device());
      longest = std::max(longest, part.elements);
      visits_ = visits_ || !(entry.memory.device() == device);
    }
    if (!visits_) return;
    const TensorView& like = moments_.front().first;
    const Device device = moments_.front().part.parameter->value.device;
    for (Tensor& stage : stages_) stage = Tensor(like.dtype, {std::min(kPiece, longest)}, device);
  }

  void step(const OptimizerStep& step, Stream& stream) override {
    if (visits_) return step_by_visits(step, stream);
    std::vector<AdamwArgs> all;
    all.reserve(moments_.size());
    for (const Moments& entry : moments_) all.push_back(args_of(entry, 0, entry.part.elements, step, stream));
    adamw_steps(all);
  }

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    for (Moments& entry : moments_) {
      for (const ParameterSlice& slice : entry.part.parameter->slices) {
        add_state("exp_avg." + slice.name, entry.part, slice, entry.first, all);
        add_state("exp_avg_sq." + slice.name, entry.part, slice, entry.second, all);
      }
    }
    return all;
  }

  std::int64_t state_bytes() const override {
    std::int64_t bytes = 0;
    for (const Moments& entry : moments_) bytes += entry.first.bytes() + entry.second.bytes();
    return bytes;
  }

 private:
  struct Moments {
    ParameterPart part;
    Storage memory;     // of both
    TensorView first;   // [elements]
    TensorView second;  // [elements]
  };
  /// Of elements [begin, begin + count) of a part, its moments in place.
  AdamwArgs args_of(const Moments& entry, std::int64_t begin, std::int64_t count, const OptimizerStep& step,
                    Stream& stream) const {
    const Parameter& parameter = *entry.part.parameter;
    const auto part_of = [&](const TensorView& whole) {
      return whole.reshaped({parameter.elements()}).slice(0, entry.part.begin + begin, count);
    };
    const bool decayed = parameter.role == ParameterRole::matrix || parameter.role == ParameterRole::factor;
    return {.parameter = part_of(parameter.value),
            .first_moment = entry.first.slice(0, begin, count),
            .second_moment = entry.second.slice(0, begin, count),
            .copy = {},
            .gradient = part_of(parameter.grad),
            .gradient_scale = step.gradient_scale,
            .learning_rate = step.learning_rate,
            .beta1 = spec_.beta1,
            .beta2 = spec_.beta2,
            .eps = spec_.epsilon,
            .weight_decay = decayed ? spec_.weight_decay : 0.0,
            .step = step.number,
            .stream = stream};
  }
  /// State is in host memory, all else on a device.
  void step_by_visits(const OptimizerStep& step, Stream& stream) {
    for (const Moments& entry : moments_) {
      for (std::int64_t begin = 0; begin < entry.part.elements; begin += kPiece) {
        const std::int64_t count = std::min(kPiece, entry.part.elements - begin);
        AdamwArgs args = args_of(entry, begin, count, step, stream);
        const TensorView homes[] = {args.first_moment, args.second_moment};
        args.first_moment = stages_[0].view().slice(0, 0, count);
        args.second_moment = stages_[1].view().slice(0, 0, count);
        copy(args.first_moment, homes[0], stream);
        copy(args.second_moment, homes[1], stream);
        adamw_step(args);
        copy(homes[0], args.first_moment, stream);
        copy(homes[1], args.second_moment, stream);
      }
    }
    wait_for(stream, WaitCause::host_state, step.waits);
  }
  /// What `moment`, of `part`, has of a disk tensor.
  static void add_state(std::string name, const ParameterPart& part, const ParameterSlice& slice,
                        const TensorView& moment, std::vector<OptimizerState>& all) {
    const std::int64_t columns = part.parameter->columns;
    const std::int64_t first = slice.begin * columns;
    const std::int64_t begin = std::max(part.begin, first);
    const std::int64_t end = std::min(part.begin + part.elements, first + slice.rows * columns);
    if (begin >= end) return;
    const bool whole = end - begin == slice.rows * columns;
    const TensorView flat = moment.slice(0, begin - part.begin, end - begin);
    all.push_back({.name = std::move(name),
                   .data = whole ? flat.reshaped({slice.rows, columns}) : flat,
                   .begin = begin - first,
                   .part = !whole});
  }

  OptimizerSpec spec_;
  std::vector<Moments> moments_;
  bool visits_ = false;
  Tensor stages_[2];  // for first and second moments that visit
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerSpec& spec, MomentFormat moments,
                                      const std::vector<ParameterPart>& parts) {
  return std::make_unique<AdamW>(spec, moments, parts);
}

}  // namespace shoestring
