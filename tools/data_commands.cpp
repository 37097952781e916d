// shoestring data inspect | verify
#include <cstdio>

#include "data/chat_tokens.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "tools/arguments.h"
#include "tools/commands.h"

namespace shoestring {
namespace {

// The first document of a masked shard, what is learned marked; where its tokenizer lies beside it or above.
std::string first_conversation(const std::string& path) {
  constexpr std::uint64_t kMostTokens = 2000;
  std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  if (find_tokenizer(folder).empty()) folder = folder.parent_path();
  if (find_tokenizer(folder).empty()) return {};
  const auto tokenizer = load_tokenizer(folder);
  const Shard shard = Shard::open(path);
  if (tokenizer->hash() != shard.info().tokenizer_hash) return {};
  std::vector<std::int32_t> tokens(std::min(shard.doc_ends().front(), kMostTokens));
  shard.read_marked(0, tokens.size(), tokens.data());
  std::vector<std::uint8_t> learned;
  for (std::int32_t& token : tokens) {
    learned.push_back(token >= 0 ? 1 : 0);
    token &= 0x7FFFFFFF;
  }
  return marked_text(tokens, learned, *tokenizer, kLearnedBegin, kLearnedEnd);
}

}  // namespace

int data_inspect_command(const Words& words) {
  const Arguments arguments({.command = "data inspect",
                             .positional = "SHARD...",
                             .summary = "What a shard, or each shard of a folder, holds.",
                             .options = {},
                             .least = 1,
                             .most = 1000},
                            words);
  if (arguments.helped()) return 0;
  for (const std::string& path : arguments.positional()) {
    for (const std::string& shard : list_shards(path)) {
      const ShardReport report = inspect_shard(shard);
      fmt::print(
          "{}\n  source          {}\n  tokens          {} ({} bytes each)\n  documents       {} (of {} to {} "
          "tokens, mean {:.1f})\n  text bytes      {}\n  vocabulary      {}, end of document {}\n  tokenizer       "
          "{}\n  content         {:016x}\n",
          shard, report.info.source, report.info.tokens, report.info.token_bytes, report.info.documents,
          report.shortest_document, report.longest_document, report.mean_document, report.info.text_bytes,
          report.info.vocabulary_size, report.info.end_of_document, report.info.tokenizer_hash,
          report.info.content_hash);
      if (!report.info.masked()) continue;
      fmt::print("  learned tokens  {} ({:.1f}%)\n", report.learned_tokens,
                 100.0 * static_cast<double>(report.learned_tokens) / static_cast<double>(report.info.tokens));
      const std::string first = first_conversation(shard);
      if (!first.empty())
        fmt::print("  first document, learned between {} and {}:\n{}\n", kLearnedBegin, kLearnedEnd, first);
    }
  }
  return 0;
}

int data_verify_command(const Words& words) {
  const Arguments arguments(
      {.command = "data verify",
       .positional = "SHARD...",
       .summary = "Reads every block of a shard, or of each shard of a folder, against its checksum "
                  "and vocabulary.",
       .options = {},
       .least = 1,
       .most = 1000},
      words);
  if (arguments.helped()) return 0;
  bool sound = true;
  for (const std::string& path : arguments.positional()) {
    for (const std::string& shard : list_shards(path)) {
      const ShardVerdict verdict = verify_shard(shard);
      fmt::print("{}: {} ({} blocks, {} documents)\n", shard, verdict.sound() ? "sound" : "DAMAGED",
                 verdict.blocks_checked, verdict.documents_checked);
      for (const ShardFault& fault : verdict.faults) fmt::print("  {}\n", fault.text);
      sound = sound && verdict.sound();
    }
  }
  return static_cast<int>(sound ? ExitCode::done : ExitCode::bad_data);
}

}  // namespace shoestring
