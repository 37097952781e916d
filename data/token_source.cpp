#include "data/token_source.h"

#include <cerrno>

#include "data/block_check.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"

namespace shoestring {

namespace {

// Who has patience has seen them before: that they are not there is the storage's doing.
std::vector<std::string> listed(const std::string& path, const ShardOptions& options) {
  StorageWait wait(*options.storage, options.patience, path);
  while (true) {
    try {
      std::vector<std::string> files = list_shards(path);
      wait.done();
      return files;
    } catch (const Error& error) {
      if (options.patience.seconds <= 0) throw;
      if (options.patience.say) options.patience.say(error.what());
      wait.failed(EIO);
    }
  }
}

}  // namespace

TokenSource::TokenSource(const std::vector<std::string>& paths, const ShardOptions& options) : first_token_{0} {
  for (const std::string& path : paths) {
    for (const std::string& file : listed(path, options)) {
      shards_.push_back(Shard::open(file, options));
      require_same_tokens(shards_.front().info(), shards_.back().info());
      first_token_.push_back(first_token_.back() + shards_.back().info().tokens);
    }
  }
}

std::vector<DocumentEnds> TokenSource::documents() const {
  std::vector<DocumentEnds> documents;
  for (std::size_t at = 0; at < shards_.size(); ++at) {
    documents.push_back({shards_[at].doc_ends(), first_token_[at]});
  }
  return documents;
}

std::uint64_t TokenSource::text_bytes() const {
  std::uint64_t bytes = 0;
  for (const Shard& shard : shards_) {
    if (shard.info().text_bytes == 0) return 0;
    bytes += shard.info().text_bytes;
  }
  return bytes;
}

std::uint64_t TokenSource::content_hash() const {
  std::vector<std::uint64_t> hashes;
  for (const Shard& shard : shards_) hashes.push_back(shard.info().content_hash);
  return checksum(hashes.data(), hashes.size() * sizeof(std::uint64_t));
}

void require_same_tokens(const ShardInfo& a, const ShardInfo& b) {
  const auto require = [&](const char* what, const auto& in_a, const auto& in_b) {
    if (in_a != in_b) {
      fail(ExitCode::bad_data, "{} and {} differ in {} ({} and {}); shards of one run come from one tokenizer", a.path,
           b.path, what, in_a, in_b);
    }
  };
  require("tokenizer", a.tokenizer_hash, b.tokenizer_hash);
  require("vocabulary size", a.vocabulary_size, b.vocabulary_size);
  require("end-of-document id", a.end_of_document, b.end_of_document);
}

}  // namespace shoestring
