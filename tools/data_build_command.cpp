// shoestring data build, alone or under mpirun
#include <algorithm>
#include <cstdio>
#include <limits>

#include "core/training/signals.h"
#include "core/training/work_progress.h"
#include "data/corpus_build.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "parallel/arrival.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/messages.h"

namespace shoestring {
namespace {

/// The ranks of the world that the process was launched into.
class WorldRanks final : public BuildRanks {
 public:
  explicit WorldRanks(Communicator& world) : world_(world) {
    constexpr double kMonth = 30.0 * 24 * 3600;  // the others' parts may take that much longer than this one's
    world_.set_timeout(kMonth);
  }
  int rank() const override { return world_.rank(); }
  int size() const override { return world_.size(); }
  std::vector<std::int64_t> gather(std::span<const std::int64_t> values) override {
    const auto count = static_cast<std::int64_t>(values.size());
    if (count == 0) {
      world_.barrier();
      return {};
    }
    std::vector<std::int64_t> all(values.size() * static_cast<std::size_t>(size()));
    world_.all_gather(view_of(all.data(), DType::i64, {count * size()}), view_of(values.data(), DType::i64, {count}));
    return all;
  }

 private:
  Communicator& world_;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

CorpusBuildResult built(const CorpusBuildOptions& options, Workers& workers, BuildRanks& ranks) {
  WorkProgress line;
  return build_corpus(options, workers,
                      {.say = [&](const std::string& text) { line.say(text); },
                       .progress =
                           [&](const BuildProgress& at) {
                             line.show({.doing = std::string(at.doing),
                                        .done_bytes = at.done_bytes,
                                        .all_bytes = at.all_bytes,
                                        .more = at.seconds > 0  ? fmt::format("since {:.0f} s", at.seconds)
                                                : at.tokens > 0 ? fmt::format("{} tokens", at.tokens)
                                                                : ""});
                           },
                       .stop = stop_requested},
                      ranks);
}

CurationOptions curation_in(const Arguments& arguments) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  CurationOptions rules;
  rules.presets = split(arguments.text("rules"), ',');
  rules.least_bytes = arguments.integer("min-bytes", 0, 0, kMost);
  rules.most_bytes = arguments.integer("max-bytes", 0, 0, kMost);
  rules.repeated_lines = arguments.real("max-repeated-lines", 1, 0, 1, Unit::fraction);
  rules.scripts = split(arguments.text("scripts"), ',');
  for (const std::string& file : split(arguments.text("decontaminate"), ',')) rules.decontaminate.emplace_back(file);
  return rules;
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
  if (options.curation.any()) {
    fail(ExitCode::usage,
         "--chat takes conversations as they are: the rules of --rules, --min-bytes, --scripts, "
         "--decontaminate and the like are for text");
  }
  if (format == "auto") {
    const std::filesystem::path folder = options.tokenizer_file;
    options.corpus.fields.chat = chat_format_of(folder);
    if (!options.corpus.fields.chat) {
      fail(ExitCode::bad_data,
           "{}: holds no chat template whose turns are known here, to the letter; name its format: --chat qwen2.5",
           folder.string());
    }
  } else {
    options.corpus.fields.chat = chat_format_named(format);
    const std::string caveat = chat_template_caveat(options.tokenizer_file, *options.corpus.fields.chat);
    if (!caveat.empty()) say("{}", caveat);
  }
  options.last_reply_alone = learn == "last";
  options.near_threshold = 2;
}

// Why no recipe could name what lies under a path (core/recipe/values.h); empty where one can.
std::string_view why_unnameable(std::string_view path) {
  constexpr std::string_view kBlanks = " \t";
  if (path.find(',') != std::string_view::npos) return "',' separates the paths of a recipe";
  if (path.find('#') != std::string_view::npos) return "'#' begins a comment in a recipe";
  if (std::any_of(path.begin(), path.end(), [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; })) {
    return "a recipe holds no control characters";
  }
  const bool blank_ends =
      kBlanks.find(path.front()) != std::string_view::npos || kBlanks.find(path.back()) != std::string_view::npos;
  return blank_ends ? "a recipe drops the blanks around a path" : "";
}

std::filesystem::path out_in(const Arguments& arguments) {
  const std::string out = arguments.text("out");
  if (out.empty()) fail(ExitCode::usage, "data build needs --out DIR");
  if (const std::string_view why = why_unnameable(out); !why.empty()) {
    fail(ExitCode::usage, "--out {}: shards there could not be trained on: {}; choose another name", Json(out).dump(),
         why);
  }
  return out;
}

/// Options that something else given makes meaningless.
void refuse_unread(const Arguments& arguments, const CorpusBuildOptions& options) {
  for (const char* name : {"vocabulary", "tokenizer-sample"}) {
    if (!arguments.has(name) || options.tokenizer == TokenizerChoice::train) continue;
    fail(ExitCode::usage,
         "--{} is of a tokenizer that is trained, and --tokenizer {} takes one that is there: leave one out", name,
         arguments.text("tokenizer"));
  }
  if (arguments.has("field") && options.corpus.fields.chat) {
    fail(ExitCode::usage, "--field names where text lies, and --chat takes whole conversations: leave one out");
  }
}

CorpusBuildOptions options_in(const Arguments& arguments) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
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
  options.corpus.input_limit_bytes = arguments.integer("input-limit-bytes", 0, 0, kMost);
  options.out = out_in(arguments);
  const std::string tokenizer = arguments.text("tokenizer", "train");
  if (tokenizer == "bytes") {
    options.tokenizer = TokenizerChoice::bytes;
  } else if (tokenizer != "train") {
    options.tokenizer = TokenizerChoice::file;
    options.tokenizer_file = tokenizer;
  }
  options.curation = curation_in(arguments);
  take_chat(arguments, options);
  refuse_unread(arguments, options);
  options.vocabulary = static_cast<std::uint32_t>(arguments.integer("vocabulary", 4096, 300, 1 << 20));
  options.hold_out = arguments.real("hold-out", 0.01, 0, 0.9, Unit::fraction);
  options.shard_tokens = arguments.integer("shard-tokens", options.shard_tokens, 1, kMost);
  options.source = arguments.text("source", options.corpus.inputs.front().string());
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed", 17, 0, kMost));
  return options;
}

void print(const CorpusBuildOptions& options, const CorpusBuildResult& result) {
  fmt::print("{}: {} training tokens in {} documents, {} held out in {}; vocabulary {}\n", options.out.string(),
             result.train_tokens, result.train_documents, result.validation_tokens, result.validation_documents,
             result.vocabulary);
}

}  // namespace

int data_build_command(const Words& words) {
  const Arguments arguments(
      {.command = "data build",
       .positional = "INPUT...",
       .summary =
           "Turns folders of text, files, JSONL and tables (Parquet, Arrow), packed or not (gzip, zstd, xz, bzip2), "
           "into token shards\nunder --out; - is standard input. Duplicates are dropped, some of the text held out for "
           "validation, a tokenizer trained unless one is given.\nUnder mpirun the ranks share the work: the same "
           "bytes "
           "come of it, on a file system that all see.",
       .options = {{"out", "DIR", "where the shards go; must not exist yet; a stopped build goes on from DIR.partial"},
                   {"tokenizer", "WHICH", "train (default), bytes, or a tokenizer file or folder"},
                   {"vocabulary", "N", "pieces of a trained tokenizer (4096)"},
                   {"extensions", "LIST", "only files ending so: .h,.hpp or h,hpp (all text)"},
                   {"field", "LIST",
                    "JSONL fields, or columns, that hold the text: content, or data.title,data.text joined (text)"},
                   {"where", "LIST", "only JSONL lines, or rows, whose fields are so: lang=en,data.kind=page (all)"},
                   {"hold-out", "SHARE", "of the documents held out; of few, their end (0.01)"},
                   {"tokenizer-sample", "N", "bytes of text that a trained tokenizer sees (4Mi)"},
                   {"chat", "FORMAT",
                    "JSONL lines are conversations (messages, or ShareGPT's conversations), of which the replies are "
                    "learned: qwen2.5, llama3, ...; auto: the format of the tokenizer's folder"},
                   {"learn", "WHICH", "with --chat: all replies, or the last one (all)"},
                   {"skip-bad", "SHARE", "bad lines of JSONL to skip and count; more of them refuse the build (0)"},
                   {"limit-bytes", "N", "stop after that much text (all)"},
                   {"input-limit-bytes", "N", "take that much text of each input (all)"},
                   {"shard-tokens", "N", "tokens of a shard (268435456)"},
                   {"rules", "LIST", "published rules of what is worth training on: gopher, c4 (none)"},
                   {"min-bytes", "N", "of a document; shorter ones are left out (0)"},
                   {"max-bytes", "N", "of a document; longer ones are left out (no limit)"},
                   {"max-repeated-lines", "SHARE", "of a document's lines that may repeat earlier ones (1)"},
                   {"scripts", "LIST", "most letters of a document are of these: latin,cyrillic (any)"},
                   {"decontaminate", "LIST", "evaluation files: what shares 13 words in a row with them is left out"},
                   {"source", "NAME", "what the text is, for reports"},
                   {"seed", "N", "of the hold-out and the tokenizer's sample (17)"},
                   {"threads", "N", "worker threads (all cores; under mpirun one a rank)"}},
       .least = 1,
       .most = 1000},
      words);
  if (arguments.helped()) return 0;
  const CorpusBuildOptions options = options_in(arguments);
  const auto threads = static_cast<int>(arguments.integer("threads", 0, 0, 1024));
  install_signal_handlers();
  const std::unique_ptr<Communicator> world = join_world(stop_requested);
  try {
    WorldRanks ranks(*world);
    Workers workers(threads == 0 && ranks.size() > 1 ? 1 : threads);
    const CorpusBuildResult result = built(options, workers, ranks);
    if (ranks.leads()) print(options, result);
  } catch (const std::exception& exception) {
    if (world->size() > 1) {  // the other ranks would wait for this one for ever
      const Error error = as_error(exception);
      say("shoestring: rank {}: {}", world->rank(), error.what());
      world->abort(error.code(), error.what());
    }
    throw;
  }
  return 0;
}

}  // namespace shoestring
