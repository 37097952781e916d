// Where the documents of one split of a corpus go, in their order, as tokens.
#pragma once

#include <cstdint>
#include <span>

namespace shoestring {

class DocumentSink {
 public:
  virtual ~DocumentSink() = default;
  /// Whether an earlier build has written document `number`: it needs no encoding.
  virtual bool stands(std::int64_t number) const = 0;
  /// The next document, which stands.
  virtual void pass() = 0;
  /// The next document, which does not.
  virtual void append(std::span<const std::uint32_t> ids, std::size_t text_bytes) = 0;
  /// The same of a conversation, with what of it is learned; see ShardWriter::append_masked.
  virtual void append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) = 0;
  /// After the last.
  virtual void finish() = 0;

  // Of the whole split, what an earlier build wrote included; tokens after `finish`.
  virtual std::int64_t documents() const = 0;
  virtual std::int64_t bytes() const = 0;
  virtual std::int64_t tokens() const = 0;
  virtual std::int64_t finished_documents() const = 0;  ///< by an earlier build
};

}  // namespace shoestring
