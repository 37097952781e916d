// How rows of a mixture come to the experts and back: on this rank, or through the exchange where ranks share them.
#include <algorithm>
#include <utility>

#include "core/model/mixture_of_experts.h"
#include "core/model/packed_rows.h"
#include "kernels/base/copy.h"
#include "kernels/gather_quantize.h"

namespace shoestring {
namespace {

/// Where the experts' rows begin in a dry run, which routes none: even over ranks, and all but the first expert have
/// the least there is, `multiple` rows, so that these rows begin as many tiles as so many rows can.
std::vector<std::int64_t> scattered(std::int64_t rows, std::int64_t experts, std::int64_t multiple) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t e = 0; e <= experts; ++e) {
    offsets.push_back(e == 0 ? 0 : std::max<std::int64_t>(0, rows / multiple - experts + e) * multiple);
  }
  return offsets;
}

}  // namespace

void MixtureOfExperts::announce_rows(Record& record, LayerContext& context) const {
  if (context.stream.dry()) {
    record.offsets =
        scattered(record.plan.slot_of_row.elements(), experts_, row_multiple(context.stream.device().kind));
    return;
  }
  record.offsets.resize(static_cast<std::size_t>(experts_ + 1));
  copy(view_of(record.offsets.data(), DType::i64, {experts_ + 1}), record.plan.offsets, context.stream);
  std::vector<std::int32_t> slots;
  if (shared_out()) {
    slots.resize(static_cast<std::size_t>(record.plan.slot_of_row.elements()));
    copy(view_of(slots.data(), DType::i32, record.plan.slot_of_row.shape), record.plan.slot_of_row, context.stream);
  }
  wait_for(context.stream, WaitCause::expert_rows, context.waits());
  if (shared_out()) record.announced = exchange().announce(record.offsets, slots, chosen_);
}

// Which rows come to this rank's experts; with what weight, where they do not travel.
void MixtureOfExperts::plan_rows(Record& record, Saved& saved, LayerContext& context) const {
  if (!shared_out()) {
    record.row_weights = saved.take(master_, {record.offsets.back()});
    weights_to_rows(record.row_weights, record.weights, record.plan, context.stream);
    return;
  }
  if (!context.stream.dry()) {
    record.exchange = exchange().plan(std::move(record.announced));
    record.offsets = record.exchange.offsets;
  }
  record.beside.emplace(saved.beside(this));
  record.row_weights = record.beside->take(master_, {record.offsets.back()});
}

ExpertExchange& MixtureOfExperts::exchange() const {
  check(
      share_.exchange != nullptr && share_.exchange->ranks() == share_.ranks && share_.exchange->experts() == experts_,
      "a mixture shared by {} ranks runs without their exchange", share_.ranks);
  return *share_.exchange;
}

LayerContext MixtureOfExperts::for_rows(LayerContext& context) const {
  if (!shared_out()) return context;
  check(context.growing != nullptr, "a mixture shared by {} ranks runs without scratch that grows", share_.ranks);
  context.growing->reset();
  return {.tokens = context.tokens,
          .scratch = *context.growing,
          .stream = context.stream,
          .training = context.training,
          .tally = context.tally};
}

ConstTensorView MixtureOfExperts::rounded(ConstTensorView x, Saved& saved, LayerContext& context,
                                          QuantizeCounts* counts) const {
  if (!packs_ || shared_out()) return x;
  const TensorView y = saved.take(x.dtype, x.shape);
  Arena::Scope scope(context.scratch);
  const TensorView packed = context.scratch.take(DType::u8, {x.shape[0], packed_row_bytes(hidden_)});
  pack_rows(packed, x, counts, context.stream);
  unpack_rows(y, packed, context.stream);
  return y;
}

void MixtureOfExperts::to_experts(ConstTensorView x, TensorView xp, TensorView row_weights, const Record& record,
                                  LayerContext& context, QuantizeCounts* counts) const {
  if (!shared_out()) {
    gather_rows({.xp = xp, .x = x, .plan = record.plan, .weights = {}, .stream = context.stream});
    return;
  }
  Arena::Scope scope(context.scratch);
  ConstTensorView rows = x;
  TensorView received = xp;
  if (packs_) {
    const TensorView packed = context.scratch.take(DType::u8, {x.shape[0], packed_row_bytes(hidden_)});
    pack_rows(packed, x, counts, context.stream);
    rows = packed;
    received = context.scratch.take(DType::u8, {xp.shape[0], packed_row_bytes(hidden_)});
  }
  const TensorView sorted = gathered(rows, slots(x.shape[0]), record, context);
  ExpertExchange::Beside weights;
  if (!row_weights.empty()) {
    const TensorView own = context.scratch.take(master_, {sorted.shape[0], 1});
    weights_to_rows(own.reshaped({sorted.shape[0]}), record.weights, record.plan, context.stream);
    weights = {own, row_weights.reshaped({row_weights.elements(), 1})};
  }
  wait_for(context.stream, WaitCause::exchanged_rows, context.waits());
  if (!context.stream.dry()) exchange().dispatch(record.exchange, sorted, received, weights);
  if (packs_) unpack_rows(xp, received, context.stream);
}

void MixtureOfExperts::from_experts(ConstTensorView yp, TensorView y, const ExpertExchange::Beside& weights,
                                    const Record& record, LayerContext& context) const {
  Arena::Scope scope(context.scratch);
  ConstTensorView results = yp;
  if (shared_out()) {
    const TensorView back = context.scratch.take(yp.dtype, {record.plan.slot_of_row.elements(), yp.shape[1]});
    wait_for(context.stream, WaitCause::exchanged_rows, context.waits());
    if (!context.stream.dry()) exchange().combine(record.exchange, yp, back, weights);
    results = back;
  }
  combine_rows({.y = y,
                .yp = results,
                .plan = record.plan,
                .weights = {},
                .accumulate = shared_ != nullptr,
                .stream = context.stream});
}

void MixtureOfExperts::gather_into(const InputCodes& codes, const Linear& reader, ConstTensorView x,
                                   const Record& record, LayerContext& context, QuantizeCounts* counts) const {
  gather_quantize({.row_tiles = codes.along_columns,
                   .column_tiles = codes.along_rows,
                   .x = x,
                   .plan = record.plan,
                   .scale_kind = reader.precision().scales,
                   .segments = record.offsets,
                   .counts = counts,
                   .scratch = context.scratch,
                   .stream = context.stream});
}

TensorView MixtureOfExperts::gathered(ConstTensorView x, std::int64_t rows, const Record& record,
                                      LayerContext& context) const {
  TensorView xp = context.scratch.take(x.dtype, {rows, x.shape[1]});
  gather_rows({.xp = xp, .x = x, .plan = record.plan, .weights = {}, .stream = context.stream});
  return xp;
}

}  // namespace shoestring
