// Internal to the shard reader and writer: the names and numbers that both must agree on.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/shard.h"

namespace shoestring::shard_format {

inline constexpr std::uint32_t kVersion = 1;
/// A masked shard: ids take 4 bytes, and the highest bit of a token that is only read, not learned, is set.
inline constexpr std::uint32_t kMaskedVersion = 2;
inline constexpr std::uint32_t kOnlyRead = 0x80000000;
/// Small enough that a random document costs little extra on first touch, large enough that checksums are 0.01%.
inline constexpr std::uint32_t kBlockBytes = 64 * 1024;
inline constexpr std::uint32_t kMaxBlockBytes = 16 * 1024 * 1024;
inline constexpr std::uint64_t kAlignment = 4096;
inline constexpr std::uint32_t kMaxText = 256;
inline constexpr std::uint32_t kMaxVocabulary = 0x7FFFFFFF;  ///< ids are i32 in a batch

inline constexpr const char* kTokens = "tokens";
inline constexpr const char* kDocEnds = "doc_ends";
inline constexpr const char* kBlockChecksums = "block_checksums";

inline constexpr const char* kFormatVersion = "format_version";    // u32
inline constexpr const char* kVocabularySize = "vocabulary_size";  // u32
inline constexpr const char* kEndOfDocument = "end_of_document";   // u32
inline constexpr const char* kTokenizerHash = "tokenizer_hash";    // fixed-length string
inline constexpr const char* kSource = "source";                   // fixed-length string
inline constexpr const char* kTokenCount = "token_count";          // u64
inline constexpr const char* kDocumentCount = "document_count";    // u64
inline constexpr const char* kTextBytes = "text_bytes";            // u64
inline constexpr const char* kBlockBytesName = "block_bytes";      // u32
inline constexpr const char* kContentHash = "content_hash";        // u64
inline constexpr const char* kComplete = "complete";               // u32, 1, written last
inline constexpr int kAttributes = 11;

inline constexpr const char* kRemedy = "restore the file from a copy or rebuild it with `shoestring data build`";

inline std::uint32_t token_bytes(std::uint32_t vocabulary_size, bool masked) {
  return vocabulary_size <= 65536 && !masked ? 2 : 4;
}
inline std::uint64_t blocks(std::uint64_t bytes, std::uint64_t block_bytes) {
  return (bytes + block_bytes - 1) / block_bytes;
}

/// XXH3-64 over every attribute but content_hash and complete, then over the checksums: one number for the content.
std::uint64_t content_hash(const ShardInfo& info, std::span<const std::uint64_t> checksums);

}  // namespace shoestring::shard_format
