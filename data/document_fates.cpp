#include "data/document_fates.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int64_t kFateBytes = sizeof(DocumentFate);
static_assert(kFateBytes == 8);

}  // namespace

// How many of the first `documents` stand in the block.
std::int64_t DocumentFates::held(std::int64_t documents) const {
  return std::clamp<std::int64_t>(documents - begin_, 0, static_cast<std::int64_t>(block_.size()));
}

DocumentFate& DocumentFates::in_memory(std::int64_t document) {
  check(document >= 0 && document < count_, "document {} of {}", document, count_);
  const auto size = static_cast<std::int64_t>(block_.size());
  if (document < begin_ || document >= begin_ + size) {
    if (changed_) {
      file_.write(begin_ * kFateBytes, block_.data(), static_cast<std::size_t>(held(count_) * kFateBytes));
      stored_ = std::max(stored_, begin_ + held(count_));
    }
    changed_ = false;
    begin_ = document / size * size;
    file_.read(begin_ * kFateBytes, block_.data(), held(stored_) * kFateBytes);
  }
  return block_[static_cast<std::size_t>(document - begin_)];
}

void DocumentFates::append(const DocumentFate& fate) {
  ++count_;
  in_memory(count_ - 1) = fate;
  changed_ = true;
}

void DocumentFates::judge(std::int64_t document, DocumentVerdict verdict) {
  in_memory(document).verdict = verdict;
  changed_ = true;
}

}  // namespace shoestring
