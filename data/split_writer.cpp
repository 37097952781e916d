#include "data/split_writer.h"

#include <fmt/format.h>

#include "data/shard.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

namespace fs = std::filesystem;

SplitWriter::SplitWriter(SplitOptions options, const Tokenizer& tokenizer)
    : options_(std::move(options)), tokenizer_(tokenizer) {
  make_directories(options_.folder);
  while (take_up(path_of(shards_))) ++shards_;
  for (std::int64_t behind = shards_; type_of(path_of(behind)) != fs::file_type::not_found; ++behind) {
    std::error_code error;
    fs::remove(path_of(behind), error);
    if (error) fail(ExitCode::io, "{}: cannot be removed: {}", path_of(behind).string(), system_reason(error.value()));
  }
}

fs::path SplitWriter::path_of(std::int64_t shard) const {
  return options_.folder / fmt::format("{}-{:05}.h5", options_.name, shard);
}

bool SplitWriter::take_up(const fs::path& path) {
  if (type_of(path) == fs::file_type::not_found) return false;
  try {
    const ShardInfo info = Shard::open(path.string()).info();
    if (info.tokenizer_hash != tokenizer_.hash() || info.source != options_.source ||
        info.masked() != options_.masked) {
      return false;
    }
    finished_documents_ += static_cast<std::int64_t>(info.documents);
    bytes_ += static_cast<std::int64_t>(info.text_bytes);
    tokens_ += static_cast<std::int64_t>(info.tokens);
    return true;
  } catch (const Error& error) {
    if (error.code() == ExitCode::bad_data) return false;
    throw;
  }
}

ShardWriter& SplitWriter::open_writer() {
  check(!stands(documents_), "document {} of {} is written a second time", documents_, options_.name);
  if (!writer_) {
    writer_ = std::make_unique<ShardWriter>(
        path_of(shards_++).string(),
        ShardWriterOptions{
            .vocabulary_size = tokenizer_.vocabulary_size(),
            .end_of_document = static_cast<std::uint32_t>(tokenizer_.special().end_of_document),
            .tokenizer_hash = tokenizer_.hash(),
            .source = options_.source,
            .masked = options_.masked,
        });
  }
  return *writer_;
}

void SplitWriter::append(std::span<const std::uint32_t> ids, std::size_t text_bytes) {
  open_writer().append(ids, text_bytes);
  appended(text_bytes);
}

void SplitWriter::append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) {
  open_writer().append_masked(ids, learned);
  appended(0);
}

void SplitWriter::appended(std::size_t text_bytes) {
  ++documents_;
  bytes_ += static_cast<std::int64_t>(text_bytes);
  if (static_cast<std::int64_t>(writer_->tokens()) >= options_.shard_tokens) finish();
}

void SplitWriter::finish() {
  if (!writer_) return;
  tokens_ += static_cast<std::int64_t>(writer_->finish().tokens);
  writer_.reset();
}

}  // namespace shoestring
