// Internal to the shard reader: foreign bytes, front to back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace shoestring {

/// Bytes read front to back, numbers little-endian; a read past their end gives zeros or nothing and is remembered.
class ByteCursor {
 public:
  explicit ByteCursor(std::span<const unsigned char> bytes) : rest_(bytes) {}

  std::span<const unsigned char> take(std::uint64_t count) {
    if (count > rest_.size()) {
      short_ = true;
      rest_ = {};
      return {};
    }
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::uint64_t number(int bytes) {
    const auto taken = take(static_cast<std::uint64_t>(bytes));
    std::uint64_t value = 0;
    for (std::size_t i = taken.size(); i-- > 0;) value = value << 8 | taken[i];
    return value;
  }
  int byte() { return static_cast<int>(number(1)); }
  std::size_t left() const { return rest_.size(); }
  bool overran() const { return short_; }

 private:
  std::span<const unsigned char> rest_;
  bool short_ = false;
};

}  // namespace shoestring
