// shoestring data inspect
#include <cstdio>
#include <filesystem>

#include "core/training/work_progress.h"
#include "data/chat_tokens.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "kernels/base/output_file.h"
#include "kernels/base/printable.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/output_options.h"
#include "tools/shard_page.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// The one given; else the one beside or above the first shard, as `data build` leaves it; else none.
std::unique_ptr<Tokenizer> tokenizer_for(const std::string& given, const fs::path& shard) {
  if (!given.empty()) return load_tokenizer(given);
  const fs::path folder = fs::absolute(shard).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()}) {
    const fs::path file = find_tokenizer(place);
    if (!file.empty()) return load_tokenizer(file);
  }
  return nullptr;
}

// The first document of a masked shard, what is learned marked.
std::string first_conversation(const std::string& path, const Tokenizer& tokenizer) {
  constexpr std::uint64_t kMostTokens = 2000;
  const Shard shard = Shard::open(path);
  std::vector<std::int32_t> tokens(std::min(shard.doc_ends().front(), kMostTokens));
  shard.read_marked(0, tokens.size(), tokens.data());
  std::vector<std::uint8_t> learned;
  for (std::int32_t& token : tokens) {
    learned.push_back(token >= 0 ? 1 : 0);
    token &= 0x7FFFFFFF;
  }
  return marked_text(tokens, learned, tokenizer, kLearnedBegin, kLearnedEnd);
}

void print_shard(const std::string& shard, const std::string& given_tokenizer) {
  const ShardReport report = inspect_shard(shard);
  fmt::print(
      "{}\n  source          {}\n  tokens          {} ({} bytes each)\n  documents       {} (of {} to {} "
      "tokens, mean {:.1f})\n  text bytes      {}\n  vocabulary      {}, end of document {}\n  tokenizer       "
      "{}\n  content         {:016x}\n",
      printable(shard), printable(report.info.source), report.info.tokens, report.info.token_bytes,
      report.info.documents, report.shortest_document, report.longest_document, report.mean_document,
      report.info.text_bytes, report.info.vocabulary_size, report.info.end_of_document,
      printable(report.info.tokenizer_hash), report.info.content_hash);
  if (!report.info.masked()) return;
  fmt::print("  learned tokens  {} ({:.1f}%)\n", report.learned_tokens,
             100.0 * static_cast<double>(report.learned_tokens) / static_cast<double>(report.info.tokens));
  const auto tokenizer = tokenizer_for(given_tokenizer, shard);
  if (!tokenizer || tokenizer->hash() != report.info.tokenizer_hash) return;
  fmt::print("  first document, learned between {} and {}:\n{}\n", kLearnedBegin, kLearnedEnd,
             first_conversation(shard, *tokenizer));
}

}  // namespace

int data_inspect_command(const Words& words) {
  const Arguments arguments(
      {.command = "data inspect",
       .positional = "SHARD...",
       .summary = "What a shard, or each shard of a folder, holds.",
       .options = {{"contents", "",
                    "also reads the tokens: lengths, frequent pieces, sources, samples, of all together"},
                   {"html", "FILE", "writes that as a page"},
                   {"tokenizer", "FILE", "for texts (the one beside or above the first shard)"},
                   {"samples", "N", "documents to show (3)"},
                   {"frequent", "N", "pieces to show (20)"}},
       .least = 1,
       .most = 1000},
      words);
  if (arguments.helped()) return 0;
  std::vector<std::string> shards;
  for (const std::string& path : arguments.positional()) {
    for (std::string& shard : list_shards(path)) shards.push_back(std::move(shard));
  }
  if (arguments.has("html")) {
    std::vector<NamedFile> inputs;
    for (const std::string& shard : shards) inputs.push_back({"SHARD", shard});
    if (arguments.has("tokenizer")) inputs.push_back({"--tokenizer", arguments.text("tokenizer")});
    check_outputs("data inspect", {{"--html", arguments.text("html")}}, inputs);
  }
  for (const std::string& shard : shards) print_shard(shard, arguments.text("tokenizer"));
  if (!arguments.has("contents") && !arguments.has("html")) return 0;
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(arguments.text("tokenizer"), shards.front());
  WorkProgress line;
  const ShardContents contents =
      look_into(shards, {.tokenizer = tokenizer.get(),
                         .frequent = static_cast<std::size_t>(arguments.integer("frequent", 20, 0, 1 << 20)),
                         .samples = static_cast<std::size_t>(arguments.integer("samples", 3, 0, 1000)),
                         .tell = [&](std::uint64_t read, std::uint64_t all) {
                           line.show({.doing = "reading shards",
                                      .done_bytes = static_cast<std::int64_t>(read),
                                      .all_bytes = static_cast<std::int64_t>(all),
                                      .counted = "tokens"});
                         }});
  line.wipe();
  fmt::print("\n{}", contents_text(contents));
  if (arguments.has("html")) {
    write_output(arguments.text("html"), contents_page("Shards: " + arguments.positional().front(), contents));
  }
  return 0;
}

}  // namespace shoestring
