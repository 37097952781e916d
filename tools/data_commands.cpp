// shoestring data build | inspect | verify
#include <cstdio>
#include <limits>

#include "core/training/signals.h"
#include "data/chat_tokens.h"
#include "data/corpus_build.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/work_progress.h"

namespace shoestring {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

CorpusBuildResult built(const CorpusBuildOptions& options, Workers& workers) {
  WorkProgress line;
  return build_corpus(options, workers,
                      {.say = [&](const std::string& text) { line.say(text); },
                       .progress =
                           [&](const BuildProgress& at) {
                             line.show({.doing = std::string(at.doing),
                                        .done_bytes = at.done_bytes,
                                        .all_bytes = at.all_bytes,
                                        .more = at.tokens > 0 ? fmt::format("{} tokens", at.tokens) : ""});
                           },
                       .stop = stop_requested});
}

// Near duplicates stay: conversations about one thing are alike and still teach different replies.
void take_chat(const Arguments& arguments, CorpusBuildOptions& options) {
  const std::string format = arguments.text("chat");
  const std::string learn = arguments.text("learn", "all");
  if (learn != "all" && learn != "last") fail(ExitCode::usage, "--learn must be all or last, not '{}'", learn);
  if (format.empty()) {
    if (learn != "all") fail(ExitCode::usage, "--learn needs --chat");
    return;
  }
  if (options.tokenizer == TokenizerChoice::train) {
    fail(ExitCode::usage, "--chat needs the model's own --tokenizer: its control tokens are not in a new one");
  }
  if (format == "auto") {
    const std::filesystem::path folder = options.tokenizer_file;
    options.corpus.fields.chat = chat_format_of(folder);
    if (!options.corpus.fields.chat) {
      fail(ExitCode::bad_data, "{}: holds no chat template that is known here; name its format: --chat qwen2.5",
           folder.string());
    }
  } else {
    options.corpus.fields.chat = chat_format_named(format);
  }
  options.last_reply_alone = learn == "last";
  options.near_threshold = 2;
}

}  // namespace

int data_build_command(const Words& words) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const Arguments arguments(
      {.command = "data build",
       .positional = "INPUT...",
       .summary =
           "Turns folders of text, files and JSONL, packed or not (gzip, zstd, xz, bzip2), into token shards under "
           "--out:\nduplicates are dropped, some of the text held out for validation, a tokenizer trained unless one "
           "is given.",
       .options = {{"out", "DIR", "where the shards go; must not exist yet; a stopped build goes on from DIR.partial"},
                   {"tokenizer", "WHICH", "train (default), bytes, or a tokenizer file or folder"},
                   {"vocabulary", "N", "pieces of a trained tokenizer (4096)"},
                   {"extensions", "LIST", "only files ending so: .h,.hpp or h,hpp (all text)"},
                   {"field", "LIST", "JSONL fields that hold the text: content, or data.title,data.text joined (text)"},
                   {"where", "LIST", "only JSONL lines whose fields are so: lang=en,data.kind=page (all)"},
                   {"hold-out", "SHARE", "of the documents held out; of few, their end (0.01)"},
                   {"tokenizer-sample", "N", "bytes of text that a trained tokenizer sees (4Mi)"},
                   {"chat", "FORMAT",
                    "JSONL lines are conversations (messages, or ShareGPT's conversations), of which the replies are "
                    "learned: qwen2.5, llama3, ...; auto: the format of the tokenizer's folder"},
                   {"learn", "WHICH", "with --chat: all replies, or the last one (all)"},
                   {"skip-bad", "SHARE", "bad lines of JSONL to skip and count; more of them refuse the build (0)"},
                   {"limit-bytes", "N", "stop after that much text (all)"},
                   {"shard-tokens", "N", "tokens of a shard (268435456)"},
                   {"source", "NAME", "what the text is, for reports"},
                   {"seed", "N", "of the hold-out and the tokenizer's sample (17)"},
                   {"threads", "N", "worker threads (all cores)"}},
       .least = 1,
       .most = 1000},
      words);
  if (arguments.helped()) return 0;
  CorpusBuildOptions options;
  for (const std::string& input : arguments.positional()) options.corpus.inputs.emplace_back(input);
  options.corpus.extensions = split(arguments.text("extensions"), ',');
  options.corpus.fields.text = split(arguments.text("field", "text"), ',');
  for (const std::string& word : split(arguments.text("where"), ',')) {
    options.corpus.fields.where.push_back(field_filter(word));
  }
  options.corpus.skip_bad = arguments.real("skip-bad", 0, 0, 1, Unit::fraction);
  options.tokenizer_sample_bytes =
      arguments.integer("tokenizer-sample", options.tokenizer_sample_bytes, 1 << 16, std::int64_t{1} << 30);
  options.corpus.limit_bytes = arguments.integer("limit-bytes", 0, 0, kMost);
  options.out = arguments.text("out");
  if (options.out.empty()) fail(ExitCode::usage, "data build needs --out DIR");
  const std::string tokenizer = arguments.text("tokenizer", "train");
  if (tokenizer == "bytes") {
    options.tokenizer = TokenizerChoice::bytes;
  } else if (tokenizer != "train") {
    options.tokenizer = TokenizerChoice::file;
    options.tokenizer_file = tokenizer;
  }
  take_chat(arguments, options);
  options.vocabulary = static_cast<std::uint32_t>(arguments.integer("vocabulary", 4096, 300, 1 << 20));
  options.hold_out = arguments.real("hold-out", 0.01, 0, 0.9, Unit::fraction);
  options.shard_tokens = arguments.integer("shard-tokens", options.shard_tokens, 1, kMost);
  options.source = arguments.text("source", options.corpus.inputs.front().string());
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed", 17, 0, kMost));
  Workers workers(static_cast<int>(arguments.integer("threads", 0, 0, 1024)));
  install_signal_handlers();
  const CorpusBuildResult result = built(options, workers);
  fmt::print("{}: {} training tokens in {} documents, {} held out in {}; vocabulary {}\n", options.out.string(),
             result.train_tokens, result.train_documents, result.validation_tokens, result.validation_documents,
             result.vocabulary);
  return 0;
}

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
