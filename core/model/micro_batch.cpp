#include "core/model/micro_batch.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"

namespace shoestring {

/// Of everything, in host memory.
std::int64_t MicroBatch::staged_bytes(const RunShape& most, const std::vector<TokenColumn>& columns) {
  std::int64_t bytes = (kParts * most.tokens + most.sequences + 1) * size_bytes(DType::i32);
  for (const TokenColumn& column : columns) bytes += most.tokens * column.width * size_bytes(DType::f32);
  return bytes;
}

MicroBatch::MicroBatch(const RunShape& most, std::vector<TokenColumn> columns, Device device)
    : most_(most),
      columns_(std::move(columns)),
      staging_(staged_bytes(most, columns_), device),
      values_(DType::i32, {kParts * most.tokens}, device),
      sequence_starts_(DType::i32, {most.sequences + 1}, device) {
  for (const TokenColumn& column : columns_) {
    column_values_.emplace_back(DType::f32, Shape{most.tokens, column.width}, device);
  }
}

void MicroBatch::fill_dry() {
  staging_.take();
  number_ = 0;
  tokens_ = most_.tokens;
  document_starts_.clear();  // documents are not longer than sequences, so these need the most memory
  for (std::int64_t s = 0; s <= most_.sequences; ++s) {
    document_starts_.push_back(static_cast<std::int32_t>(s * most_.tokens / most_.sequences));
  }
  layout_ = {part(kPositions), part(kSegmentStart), sequence_starts_.view(), document_starts_};
}

std::span<std::int32_t> MicroBatch::host(int index) {
  return {reinterpret_cast<std::int32_t*>(here_) + index * most_.tokens, static_cast<std::size_t>(tokens_)};
}

void MicroBatch::fill(const BatchView& batch, int number, Stream& stream) {
  const std::size_t count = batch.inputs.size();
  number_ = number;
  tokens_ = static_cast<std::int64_t>(count);
  check(batch.sequence > 0 && tokens_ > 0 && tokens_ % batch.sequence == 0, "a batch of {} tokens in sequences of {}",
        tokens_, batch.sequence);
  const std::int64_t sequences = tokens_ / batch.sequence;
  check(tokens_ <= most_.tokens && sequences <= most_.sequences,
        "a batch of {} sequences, {} tokens; memory is planned for {} sequences, {} tokens", sequences, tokens_,
        most_.sequences, most_.tokens);
  check(batch.targets.size() == count && batch.segment_start.size() == count,
        "a batch of {} inputs has {} targets, {} segment starts", count, batch.targets.size(),
        batch.segment_start.size());
  here_ = static_cast<char*>(staging_.take());
  derive(batch);
  for (int index = 0; index < kParts; ++index) {
    copy(values_.view().slice(0, index * most_.tokens, tokens_),
         view_of(static_cast<const void*>(host(index).data()), DType::i32, {tokens_}), stream);
  }
  auto* const starts = reinterpret_cast<std::int32_t*>(here_) + kParts * most_.tokens;
  for (std::int64_t s = 0; s <= sequences; ++s) starts[s] = static_cast<std::int32_t>(s * batch.sequence);
  const TensorView own_starts = sequence_starts_.view().slice(0, 0, sequences + 1);
  copy(own_starts, view_of(static_cast<const void*>(starts), DType::i32, {sequences + 1}), stream);
  layout_ = {part(kPositions), part(kSegmentStart), own_starts, document_starts_};
  auto* columns = reinterpret_cast<float*>(starts + most_.sequences + 1);
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    fill_column(i, batch, columns, stream);
    columns += most_.tokens * columns_[i].width;
  }
  staging_.sent(stream);
}

/// All parts, in host memory.
void MicroBatch::derive(const BatchView& batch) {
  std::copy(batch.inputs.begin(), batch.inputs.end(), host(kInputs).begin());
  std::copy(batch.targets.begin(), batch.targets.end(), host(kTargets).begin());
  std::copy(batch.segment_start.begin(), batch.segment_start.end(), host(kSegmentStart).begin());
  const std::span<std::int32_t> positions = host(kPositions);
  const std::span<std::int32_t> next_ids = host(kNextIds);
  const std::span<std::int32_t> next_targets = host(kNextTargets);
  const std::size_t count = batch.inputs.size();
  document_starts_.clear();
  for (std::size_t t = 0; t < count; ++t) {
    if (batch.segment_start[t] == static_cast<std::int32_t>(t)) document_starts_.push_back(batch.segment_start[t]);
    positions[t] = static_cast<std::int32_t>(t) - batch.segment_start[t];
    const bool same_document = t + 1 < count && batch.segment_start[t + 1] == batch.segment_start[t];
    next_ids[t] = same_document ? batch.inputs[t + 1] : batch.inputs[t];
    next_targets[t] = same_document ? batch.targets[t + 1] : -1;
  }
  document_starts_.push_back(static_cast<std::int32_t>(count));
}

void MicroBatch::fill_column(std::size_t index, const BatchView& batch, float* here, Stream& stream) {
  const TokenColumn& column = columns_[index];
  const auto given = std::find_if(batch.columns.begin(), batch.columns.end(),
                                  [&](const ColumnView& view) { return view.name == column.name; });
  check(given != batch.columns.end(), "the objective reads the column '{}', which the batch does not bring",
        column.name);
  check(static_cast<std::int64_t>(given->values.size()) == tokens_ * column.width,
        "column '{}' holds {} values for {} tokens of {}", column.name, given->values.size(), tokens_, column.width);
  std::copy(given->values.begin(), given->values.end(), here);
  copy(column_values_[index].view().slice(0, 0, tokens_),
       view_of(static_cast<const void*>(here), DType::f32, {tokens_, column.width}), stream);
}

ConstTensorView MicroBatch::column(std::string_view name) const {
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].name == name) return column_values_[i].view().slice(0, 0, tokens_);
  }
  fail(ExitCode::bug, "no column '{}' in a micro-batch: Objective::columns does not name it", name);
}

}  // namespace shoestring
