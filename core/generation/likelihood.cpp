#include "core/generation/likelihood.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

LikelihoodReader::LikelihoodReader(CachedForward& forward, std::int64_t vocabulary)
    : forward_(forward), vocabulary_(vocabulary) {}

Likelihood LikelihoodReader::of(std::span<const std::int32_t> context, std::span<const std::int32_t> continuation) {
  check(!context.empty() && !continuation.empty(), "{} tokens behind {}", continuation.size(), context.size());
  const auto capacity = static_cast<std::size_t>(forward_.capacity());
  if (continuation.size() > capacity) {
    fail(ExitCode::usage,
         "the continuation takes {} tokens, but there is room for {}: shorten it, or raise --context as far as the "
         "model has positions",
         continuation.size(), capacity);
  }
  std::vector<std::int32_t> input(context.begin(), context.end());
  input.insert(input.end(), continuation.begin(), continuation.end() - 1);
  if (input.size() > capacity) input.erase(input.begin(), input.end() - static_cast<std::ptrdiff_t>(capacity));
  const std::size_t first = input.size() - continuation.size();  // the row that predicts the continuation's first token
  const std::size_t usable = std::min(held_.size(), first);
  const auto same = std::mismatch(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(usable), held_.begin());
  auto done = static_cast<std::size_t>(same.first - input.begin());
  held_.clear();  // should the model throw, nothing is known of the slot
  forward_.keep(0, static_cast<std::int64_t>(done));
  Likelihood result;
  while (done < input.size()) {
    const std::size_t count = std::min(input.size() - done, static_cast<std::size_t>(forward_.rows()));
    const std::vector<CachedForward::Piece> piece{{0, std::span(input).subspan(done, count)}};
    forward_.append(piece);
    std::vector<std::int32_t> rows;
    for (std::size_t row = std::max(done, first); row < done + count; ++row) {
      rows.push_back(static_cast<std::int32_t>(row - done));
    }
    const std::size_t begin = std::max(done, first) - first;
    const std::vector<double> found = forward_.choose(rows, [&](std::size_t i, std::span<const float> logits) {
      const std::int32_t target = continuation[begin + i];
      const std::span<const float> known = logits.first(std::min(logits.size(), static_cast<std::size_t>(vocabulary_)));
      result.greedy = result.greedy && std::max_element(known.begin(), known.end()) - known.begin() == target;
      return target;
    });
    for (const double each : found) result.log_probability += each;
    done += count;
  }
  held_ = std::move(input);
  return result;
}

Likelihood LikelihoodReader::of_text(std::int32_t prefix, std::span<const std::int32_t> text) {
  const auto capacity = static_cast<std::size_t>(forward_.capacity());
  Likelihood sum;
  for (std::size_t done = 0; done < text.size();) {
    const std::size_t count = std::min(text.size() - done, capacity);
    if (done == 0) {
      sum += of(std::span(&prefix, 1), text.first(count));
    } else {
      const std::size_t end = done + count;
      const std::size_t before = std::min(done, capacity + 1 - count);
      sum += of(text.subspan(done - before, before), text.subspan(done, end - done));
    }
    done += count;
  }
  return sum;
}

}  // namespace shoestring
