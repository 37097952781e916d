#include "data/split_writer.h"

#include <fmt/format.h>

#include "data/shard.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

namespace fs = std::filesystem;

fs::path shard_path(const SplitOptions& options, std::int64_t shard) {
  return options.folder / fmt::format("{}-{:05}.h5", options.name, shard);
}

ShardWriterOptions shard_writer_options(const SplitOptions& options, const Tokenizer& tokenizer) {
  return {.vocabulary_size = tokenizer.vocabulary_size(),
          .end_of_document = static_cast<std::uint32_t>(tokenizer.special().end_of_document),
          .tokenizer_hash = tokenizer.hash(),
          .source = options.source,
          .masked = options.masked};
}

std::optional<ShardInfo> finished_shard(const fs::path& path, const SplitOptions& options, const Tokenizer& tokenizer) {
  if (type_of(path) == fs::file_type::not_found) return std::nullopt;
  try {
    ShardInfo info = Shard::open(path.string()).info();
    if (info.tokenizer_hash != tokenizer.hash() || info.source != options.source || info.masked() != options.masked) {
      return std::nullopt;
    }
    // Its writer may have been killed between the shard's last moment and that of what it was written from.
    for (const char* beside : {".partial", ".partial.tokens", ".partial.ends"}) {
      std::error_code not_there;
      fs::remove(path.string() + beside, not_there);
    }
    return info;
  } catch (const Error& error) {
    if (error.code() == ExitCode::bad_data) return std::nullopt;
    throw;
  }
}

SplitWriter::SplitWriter(SplitOptions options, const Tokenizer& tokenizer)
    : options_(std::move(options)), tokenizer_(tokenizer) {
  make_directories(options_.folder);
  while (take_up(shard_path(options_, shards_))) ++shards_;
  for (std::int64_t behind = shards_; type_of(shard_path(options_, behind)) != fs::file_type::not_found; ++behind) {
    std::error_code error;
    fs::remove(shard_path(options_, behind), error);
    if (error)
      fail(ExitCode::io, "{}: cannot be removed: {}", shard_path(options_, behind).string(),
           system_reason(error.value()));
  }
}

bool SplitWriter::take_up(const fs::path& path) {
  const std::optional<ShardInfo> info = finished_shard(path, options_, tokenizer_);
  if (!info) return false;
  finished_documents_ += static_cast<std::int64_t>(info->documents);
  bytes_ += static_cast<std::int64_t>(info->text_bytes);
  tokens_ += static_cast<std::int64_t>(info->tokens);
  return true;
}

ShardWriter& SplitWriter::open_writer() {
  check(!stands(documents_), "document {} of {} is written a second time", documents_, options_.name);
  if (!writer_) {
    writer_ = std::make_unique<ShardWriter>(shard_path(options_, shards_++).string(),
                                            shard_writer_options(options_, tokenizer_));
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
