#include "core/optimizer/clip.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

/// Calls visit(parameter, slice, elements) for every tensor that has a gradient and is no copy, in the model's order.
template <class Visit>
void each_tensor(const Transformer& model, const Visit& visit) {
  for (const Parameter* parameter : model.parameters()) {
    if (!parameter->has_gradient() || model.is_copy(*parameter)) continue;
    for (const ParameterSlice& slice : parameter->slices) visit(*parameter, slice, slice.rows * parameter->columns);
  }
}

}  // namespace

GradientNorm::GradientNorm(const Transformer& model, const MeshShape& shape, const MeshCoordinates& at,
                           const ParameterShards* shards) {
  std::map<std::string, std::size_t> first;  // piece of each tensor
  each_tensor(*model.whole(), [&](const Parameter&, const ParameterSlice& slice, std::int64_t elements) {
    first.emplace(slice.name, count_);
    count_ += static_cast<std::size_t>((elements + kPieceElements - 1) / kPieceElements);
  });
  each_tensor(model, [&](const Parameter& parameter, const ParameterSlice& slice, std::int64_t elements) {
    const auto place = first.find(slice.name);
    check(place != first.end(), "{} is not a tensor of the whole model", slice.name);
    std::size_t number = place->second;
    const auto shares = static_cast<std::size_t>(parameter.of_experts() ? shape.replicas() : shape.data);
    const auto share = static_cast<std::size_t>(parameter.of_experts() ? at.replica : at.data);
    for (std::int64_t begin = 0; begin < elements; begin += kPieceElements, ++number) {
      const std::int64_t in_parameter = slice.begin * parameter.columns + begin;
      const bool own = shards != nullptr ? shards->owns(parameter, in_parameter) : number % shares == share;
      if (own) own_.push_back({&parameter, in_parameter, std::min(kPieceElements, elements - begin), number});
    }
  });
}

std::span<double> GradientNorm::begin(Stream& stream) {
  const auto count = static_cast<std::int64_t>(count_);
  if (squares_.bytes() == 0) squares_ = Storage::pinned(std::max<std::int64_t>(1, count) * size_bytes(DType::f64));
  const TensorView here = view_of(squares_.data(), DType::f64, {count});
  TensorView sums = here;
  TensorView partials;
  if (stream.device().kind == DeviceKind::cpu) {
    std::fill_n(here.as<double>(), count, 0.0);
  } else {
    if (there_.empty()) there_ = Tensor(DType::f64, {count + reduce::kMaxBlocks}, stream.device());
    sums = there_.view().slice(0, 0, count);
    partials = there_.view().slice(0, count, reduce::kMaxBlocks);
  }
  for (const Piece& piece : own_) {
    const ConstTensorView gradient = piece.parameter->grad.reshaped({piece.parameter->elements()});
    reduce_into(sums.slice(0, static_cast<std::int64_t>(piece.number), 1), partials, ReduceKind::sum_of_squares,
                gradient.slice(0, piece.begin, piece.elements), stream);
  }
  if (sums.data != here.data) copy(here, sums, stream);
  return squares();
}

double GradientNorm::finish(double scale) const {
  const std::span<const double> all = squares();
  return std::sqrt(std::accumulate(all.begin(), all.end(), 0.0)) * scale;
}

double GradientNorm::operator()(Communicator& world, double scale, Stream& stream) {
  const std::span<double> sums = begin(stream);
  stream.synchronize();
  if (world.size() > 1) world.all_reduce(view_of(sums.data(), DType::f64, {std::ssize(sums)}));
  return finish(scale);
}

double clip_factor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

}  // namespace shoestring
