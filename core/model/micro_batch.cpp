#include "core/model/micro_batch.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

MicroBatch::MicroBatch(const RunShape& most)
    : most_(most), values_(DType::i32, {kParts, most.tokens}), sequence_starts_(DType::i32, {most.sequences + 1}) {}

std::int64_t MicroBatch::bytes(const RunShape& most) {
  return (kParts * most.tokens + most.sequences + 1) * size_bytes(DType::i32);
}

ConstTensorView MicroBatch::part(int index) const {
  const std::int32_t* begin = values_.as<std::int32_t>() + index * most_.tokens;
  return view_of(static_cast<const void*>(begin), DType::i32, {tokens_});
}

void MicroBatch::fill(const BatchView& batch) {
  tokens_ = static_cast<std::int64_t>(batch.inputs.size());
  const std::size_t count = batch.inputs.size();
  check(batch.sequence > 0 && tokens_ > 0 && tokens_ % batch.sequence == 0, "a batch of {} tokens in sequences of {}",
        tokens_, batch.sequence);
  const std::int64_t sequences = tokens_ / batch.sequence;
  check(tokens_ <= most_.tokens && sequences <= most_.sequences,
        "a batch of {} sequences, {} tokens; memory is planned for {} sequences, {} tokens", sequences, tokens_,
        most_.sequences, most_.tokens);
  check(batch.targets.size() == count && batch.segment_start.size() == count,
        "a batch of {} inputs has {} targets, {} segment starts", count, batch.targets.size(),
        batch.segment_start.size());
  int index = 0;
  for (const auto& from : {batch.inputs, batch.targets, batch.segment_start}) {
    std::copy(from.begin(), from.end(), data(index++));
  }
  std::int32_t* positions = data(3);
  std::int32_t* next_ids = data(4);
  std::int32_t* next_targets = data(5);
  for (std::size_t t = 0; t < count; ++t) {
    positions[t] = static_cast<std::int32_t>(t) - batch.segment_start[t];
    const bool same_document = t + 1 < count && batch.segment_start[t + 1] == batch.segment_start[t];
    next_ids[t] = same_document ? batch.inputs[t + 1] : batch.inputs[t];  // any valid id where nothing is trained
    next_targets[t] = same_document ? batch.targets[t + 1] : -1;
  }
  for (std::int64_t s = 0; s <= sequences; ++s) {
    sequence_starts_.as<std::int32_t>()[s] = static_cast<std::int32_t>(s * batch.sequence);
  }
  layout_ = {part(3), part(2),
             view_of(static_cast<const void*>(sequence_starts_.as<std::int32_t>()), DType::i32, {sequences + 1})};
  loss_inputs_ = {part(1), part(4), part(5)};
}

std::unique_ptr<MicroBatch> MicroBatches::take_free() {
  if (free_.empty()) return std::make_unique<MicroBatch>(most_);
  std::unique_ptr<MicroBatch> batch = std::move(free_.back());
  free_.pop_back();
  return batch;
}

const MicroBatch& MicroBatches::get(int microbatch) {
  Entry& entry = in_flight_[microbatch];
  if (!entry.batch) {
    check(static_cast<bool>(source_), "micro-batch {} is asked for, but nothing gives batches", microbatch);
    entry.batch = take_free();
    entry.batch->fill(source_(microbatch));
  }
  return *entry.batch;
}

void MicroBatches::release(int microbatch) {
  const auto it = in_flight_.find(microbatch);
  check(it != in_flight_.end(), "micro-batch {} is released but not in flight", microbatch);
  if (++it->second.released < stages_) return;
  free_.push_back(std::move(it->second.batch));
  in_flight_.erase(it);
}

MicroBatch& MicroBatches::spare() {
  if (!spare_) spare_ = std::make_unique<MicroBatch>(most_);
  return *spare_;
}

}  // namespace shoestring
