// Where the documents of one split of a corpus go, in their order, as tokens.
#pragma once

#include <cstdint>
#include <span>

namespace shoestring {

class DocumentSink {
 public:
  virtual ~DocumentSink() = default;
  /// Whether an earlier build has written document `number`: it needs no encoding. May be asked while another thread
  /// appends.
  bool stands(std::int64_t number) const { return number < finished_documents_; }
  /// The next document, which stands.
  void pass() { ++documents_; }
  /// The next document, which does not.
  virtual void append(std::span<const std::uint32_t> ids, std::size_t text_bytes) = 0;
  /// The same of a conversation, with what of it is learned; see ShardWriter::append_masked.
  virtual void append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) = 0;
  /// After the last.
  virtual void finish() = 0;

  // Of the whole split, what an earlier build wrote included; tokens after `finish`.
  std::int64_t documents() const { return documents_; }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t finished_documents() const { return finished_documents_; }  ///< by an earlier build

 protected:
  std::int64_t documents_ = 0, bytes_ = 0, tokens_ = 0;
  std::int64_t finished_documents_ = 0;
};

}  // namespace shoestring
