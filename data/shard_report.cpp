#include "data/shard_report.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::size_t kMostFaults = 100;
constexpr const char* kValidationFolder = "validation";

void note(ShardVerdict& verdict, std::string text, std::int64_t block = -1) {
  verdict.fault_count += 1;
  if (verdict.faults.size() < kMostFaults) verdict.faults.push_back({std::move(text), block});
}

/// Runs `body`; a bad_data error becomes a fault, anything else passes on. True when there was none.
template <class Body>
bool judge(ShardVerdict& verdict, std::int64_t block, const Body& body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_data) throw;
    note(verdict, error.what(), block);
    return false;
  }
}

/// Each document ends with the end-of-document id and, unless masked, holds it nowhere else; of a bad block its
/// documents are passed by.
void check_documents(const Shard& shard, std::uint64_t block, bool bad, ShardVerdict& verdict) {
  const ShardInfo& info = shard.info();
  const std::uint64_t per_block = info.block_bytes / info.token_bytes;
  const std::uint64_t begin = block * per_block;
  const std::uint64_t count = std::min(per_block, info.tokens - begin);
  const auto ends = shard.doc_ends();
  std::uint64_t& document = verdict.documents_checked;
  if (bad) {
    while (document < ends.size() && ends[document] <= begin + count) ++document;
    return;
  }
  std::vector<std::int32_t> tokens(count);
  shard.read(begin, count, tokens.data());
  for (std::uint64_t at = 0; at < count; ++at) {
    const bool is_end = static_cast<std::uint32_t>(tokens[at]) == info.end_of_document;
    const bool belongs = begin + at + 1 == ends[document];
    if (is_end != belongs && (belongs || !info.masked())) {
      note(verdict,
           fmt::format("{}: token {} {} the end-of-document id {}, but document {} ends at token {}; rebuild the shard",
                       info.path, begin + at, is_end ? "is" : "is not", info.end_of_document, document, ends[document]),
           static_cast<std::int64_t>(block));
    }
    if (belongs) ++document;
  }
}

std::uint64_t count_learned(const Shard& shard) {
  constexpr std::uint64_t kPiece = 64 << 10;
  std::vector<std::int32_t> tokens(kPiece);
  std::uint64_t learned = 0;
  for (std::uint64_t begin = 0; begin < shard.info().tokens; begin += kPiece) {
    const std::uint64_t count = std::min(kPiece, shard.info().tokens - begin);
    shard.read_marked(begin, count, tokens.data());
    const auto end = tokens.begin() + static_cast<std::ptrdiff_t>(count);
    learned += static_cast<std::uint64_t>(std::count_if(tokens.begin(), end, [](std::int32_t t) { return t >= 0; }));
  }
  return learned;
}

}  // namespace

ShardReport inspect_shard(const std::string& path) {
  const Shard shard = Shard::open(path);
  ShardReport report;
  report.info = shard.info();
  std::uint64_t begin = 0;
  report.shortest_document = shard.info().tokens;
  for (const std::uint64_t end : shard.doc_ends()) {
    report.shortest_document = std::min(report.shortest_document, end - begin);
    report.longest_document = std::max(report.longest_document, end - begin);
    begin = end;
  }
  report.learned_tokens = shard.info().masked() ? count_learned(shard) : shard.info().tokens;
  report.mean_document = static_cast<double>(shard.info().tokens) / static_cast<double>(shard.info().documents);
  return report;
}

ShardVerdict verify_shard(const std::string& path, const std::function<void(std::int64_t)>& tell) {
  ShardVerdict verdict;
  verdict.info.path = path;
  judge(verdict, -1, [&] {
    const Shard shard = Shard::open(path, {ShardIo::pread, true});
    verdict.info = shard.info();
    for (std::uint64_t block = 0; block < shard.info().token_blocks; ++block) {
      const bool sound = judge(verdict, static_cast<std::int64_t>(block), [&] { shard.check_block(block); });
      check_documents(shard, block, !sound, verdict);
      verdict.blocks_checked += 1;
      if (tell) tell(static_cast<std::int64_t>(verdict.blocks_checked * shard.info().block_bytes));
    }
  });
  return verdict;
}

std::vector<std::string> list_shards(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::file_type type = type_of(path);
  if (type == fs::file_type::not_found) {
    std::error_code gone;  // the current folder may be
    const std::string from = fs::path(path).is_absolute() ? "" : " in " + fs::current_path(gone).string();
    fail(ExitCode::missing_input, "{}: no such shard or folder{}; build shards with `shoestring data build`", path,
         from == " in " ? " (the current folder is gone)" : from);
  }
  if (type != fs::file_type::directory) return {path};
  std::vector<std::string> files;
  for (const fs::path& entry : list_directory(path)) {
    if (entry.extension() == kShardExtension) files.push_back(entry.string());
  }
  const fs::path folder = fs::path(path).has_filename() ? fs::path(path) : fs::path(path).parent_path();
  // As `data build` leaves it, which writes every split but this one.
  if (files.empty() && folder.filename() == kValidationFolder &&
      type_of(folder.parent_path() / "corpus.json") == fs::file_type::regular) {
    fail(ExitCode::missing_input,
         "{}: nothing was held out when these shards were built; build them again with a --hold-out above 0, or leave "
         "data.validation out to train without",
         path);
  }
  if (files.empty())
    fail(ExitCode::missing_input,
         "{}: the folder holds no *{} shard; name the folder they are in, or build them with `shoestring data build`",
         path, kShardExtension);
  return files;
}

}  // namespace shoestring
