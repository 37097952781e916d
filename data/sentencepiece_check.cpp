#include "data/sentencepiece_check.h"

#include <fmt/core.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>

// A model is protobuf: fields of (number, kind, value), where a value is a varint, 4 or 8 bytes, or a length and as
// many bytes, which may be a message again. The few fields that matter here lie two messages deep.

namespace shoestring {
namespace {

constexpr int kMostPieces = 1 << 24;
constexpr std::size_t kLongestPiece = 1024;

// Of the model.
constexpr std::uint64_t kPiece = 1;
constexpr std::uint64_t kNormalizer = 3;
constexpr std::uint64_t kDenormalizer = 5;
// Of a piece.
constexpr std::uint64_t kPieceText = 1;
constexpr std::uint64_t kPieceScore = 2;
// Of a normaliser.
constexpr std::uint64_t kCharacterMap = 2;

struct Field {
  std::uint64_t number = 0;
  int kind = 0;            // as protobuf counts: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes
  std::string_view bytes;  // of the value; a varint's are not kept
};

/// The fields of one message, front to back.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  /// The next field; nothing at the end, and where the bytes are no message: `broken` tells which.
  std::optional<Field> next() {
    if (rest_.empty() || broken_) return std::nullopt;
    const std::uint64_t tag = varint();
    Field field{tag >> 3, static_cast<int>(tag & 7), {}};
    switch (field.kind) {
      case 0: varint(); break;
      case 1: field.bytes = take(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.bytes = take(4); break;
      default: broken_ = true;  // groups, which nest, and kinds there are not
    }
    if (field.number == 0 || field.number > 0x1FFFFFFF) broken_ = true;
    return broken_ ? std::nullopt : std::optional(field);
  }
  bool broken() const { return broken_; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      if (shift < 64) value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    broken_ = true;
    return 0;
  }
  std::string_view take(std::uint64_t bytes) {
    if (broken_ || bytes > rest_.size()) {
      broken_ = true;
      return {};
    }
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  std::string_view rest_;
  bool broken_ = false;
};

std::string piece_unsoundness(std::string_view message, int number) {
  Fields fields(message);
  std::size_t length = 0;
  while (const auto field = fields.next()) {
    if (field->number == kPieceText) {
      if (field->kind != 2) return fmt::format("the text of piece {} is none", number);
      length = field->bytes.size();
    } else if (field->number == kPieceScore) {
      float score = 0;
      if (field->kind == 5) std::memcpy(&score, field->bytes.data(), sizeof(score));
      if (field->kind != 5 || !std::isfinite(score)) return fmt::format("the score of piece {} is no number", number);
    }
  }
  if (fields.broken()) return fmt::format("piece {} is cut short or damaged", number);
  if (length == 0) return fmt::format("piece {} is empty", number);
  if (length > kLongestPiece) return fmt::format("piece {} has {} bytes", number, length);
  return {};
}

std::string normalizer_unsoundness(std::string_view message) {
  Fields fields(message);
  while (const auto field = fields.next()) {
    if (field->number == kCharacterMap && (field->kind != 2 || !field->bytes.empty())) {
      return "it has a normalisation map, so some text would be changed; train one with `shoestring data build`, or "
             "with "
             "spm_train --normalization_rule_name=identity";
    }
  }
  return fields.broken() ? "its normaliser is cut short or damaged" : "";
}

}  // namespace

std::string sentencepiece_unsoundness(std::string_view model) {
  Fields fields(model);
  int pieces = 0;
  while (const auto field = fields.next()) {
    const bool known = field->number == kPiece || field->number == kNormalizer || field->number == kDenormalizer;
    if (!known) continue;
    if (field->kind != 2) return "it is no SentencePiece model";
    if (field->number == kPiece && pieces == kMostPieces) return "it has too many pieces";
    std::string unsound =
        field->number == kPiece ? piece_unsoundness(field->bytes, pieces++) : normalizer_unsoundness(field->bytes);
    if (!unsound.empty()) return unsound;
  }
  if (fields.broken()) return "it is no SentencePiece model, or cut short or damaged";
  return pieces == 0 ? "it has no pieces" : "";
}

}  // namespace shoestring
