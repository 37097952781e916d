#include "data/corpus_build.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "data/build_journal.h"
#include "data/chat_format.h"
#include "data/chat_message.h"
#include "data/chat_tokens.h"
#include "data/corpus_passes.h"
#include "data/partial_folder.h"
#include "data/piped_input.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/child_process.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kTrainedTokenizer = "tokenizer.model";

// A trained tokenizer is written at once, for a build that goes on.
bool is_trained(const fs::path& folder) { return type_of(folder / kTrainedTokenizer) == fs::file_type::regular; }

// The library that trains says nothing meanwhile, does not stop, and ends its process where memory runs out. Returns
// what it trained as the file it is kept in.
std::string train(const BuildPlace& place, std::vector<std::string>& sample) {
  constexpr const char* kDoing = "training a tokenizer";
  const CorpusBuildOptions& options = place.options;
  const auto work = [&] {
    const std::unique_ptr<Tokenizer> tokenizer = train_sentencepiece(
        options.vocabulary, options.tokenizer_sample_bytes, [&, next = std::size_t{0}](std::string& text) mutable {
          if (next == sample.size()) return false;
          text = std::move(sample[next++]);
          return true;
        });
    check(tokenizer->file_name() == kTrainedTokenizer, "a trained tokenizer is called {}", tokenizer->file_name());
    return tokenizer->file_content();
  };
  BuildPace pace(place.hooks, kDoing, 0);
  try {
    return run_in_child(kDoing, work, [&, begin = std::chrono::steady_clock::now()] { pace.since(begin, kDoing); });
  } catch (const Error& error) {
    if (error.code() != ExitCode::io) throw;
    fail(ExitCode::io, "{}; a smaller --tokenizer-sample than {} needs less memory", error.what(),
         options.tokenizer_sample_bytes);
  }
}

std::unique_ptr<Tokenizer> choose_tokenizer(const BuildPlace& place, FirstPass& found) {
  const CorpusBuildOptions& options = place.options;
  if (options.tokenizer == TokenizerChoice::bytes) return byte_tokenizer();
  if (options.tokenizer == TokenizerChoice::file) return load_tokenizer(options.tokenizer_file);
  const fs::path trained = place.folder / kTrainedTokenizer;
  if (place.ranks.leads() && !is_trained(place.folder)) {
    place.hooks.say(fmt::format("training a tokenizer of {} pieces", options.vocabulary));
    replace_file(trained, train(place, found.sample));
  }
  found.sample = {};
  place.ranks.wait_for_all();
  return load_tokenizer(trained);
}

// The second pass would read what is being written.
void refuse_output_in_input(const CorpusBuildOptions& options) {
  const fs::path out = fs::weakly_canonical(options.out);
  for (const fs::path& input : options.corpus.inputs) {
    std::error_code missing;  // CorpusReader names it
    const fs::path folder = fs::canonical(input, missing);
    if (missing || !fs::is_directory(folder)) continue;
    if (std::mismatch(folder.begin(), folder.end(), out.begin(), out.end()).first != folder.end()) continue;
    fail(ExitCode::usage, "{}: lies inside the input {}, shards would be read as text; build into a folder beside it",
         options.out.string(), input.string());
  }
}

// That the tokenizer has what the format writes around any conversation: a long first pass should not end with that.
void check_chat(const CorpusBuildOptions& options) {
  if (!options.corpus.fields.chat) return;
  const std::unique_ptr<Tokenizer> tokenizer =
      options.tokenizer == TokenizerChoice::file ? load_tokenizer(options.tokenizer_file) : byte_tokenizer();
  const Conversation shortest{.messages = {{.role = ChatRole::user, .content = "q"},
                                           {.role = ChatRole::assistant, .content = "a", .learned = true}}};
  encode_chat(render_chat(*options.corpus.fields.chat, shortest, {.training = true}), *tokenizer);
}

// By rule, in the order they were asked in: a document counts for the first one it broke.
Json left_out(const CorpusBuildResult& result) {
  Json rules = Json::array();
  for (const LeftOut& one : result.left_out) {
    rules.push(Json::object({{"rule", one.rule.name},
                             {"limit", one.rule.limit},
                             {"source", one.rule.source},
                             {"documents", one.documents},
                             {"bytes", one.bytes}}));
  }
  return rules;
}

std::string summary(const CorpusBuildOptions& options, const CorpusBuildResult& result) {
  Json json = Json::object({
      {"schema", "shoestring.corpus/1"},
      {"files", result.read.files},
      {"documents", result.read.documents},
      {"bytes", result.read.bytes},
      {"passed_over", Json::object({{"links", result.read.links},
                                    {"not_text", Json::object_of(result.read.kinds_of_file)},
                                    {"empty", result.read.empty},
                                    {"other_extensions", result.read.other_extensions},
                                    {"special_files", result.read.special_files},
                                    {"bad_lines", result.read.bad_lines},
                                    {"unwanted_lines", result.read.unwanted_lines}})},
      {"not_utf8", Json::object({{"documents", result.read.not_utf8}, {"first", result.read.first_not_utf8}})},
      {"lines_without", Json::object_of(result.read.lines_without)},
      {"left_out", left_out(result)},
      {"exact_duplicates", result.exact_duplicates},
      {"near_duplicates", result.near_duplicates},
      {"train",
       Json::object(
           {{"documents", result.train_documents}, {"bytes", result.train_bytes}, {"tokens", result.train_tokens}})},
      {"validation", Json::object({{"documents", result.validation_documents},
                                   {"bytes", result.validation_bytes},
                                   {"tokens", result.validation_tokens}})},
      {"vocabulary", result.vocabulary},
      {"tokenizer_hash", result.tokenizer_hash},
  });
  if (options.corpus.fields.chat) json.add("chat_format", name(*options.corpus.fields.chat));
  if (!result.doubtful.empty()) {
    Json doubtful = Json::array();
    for (const std::string& sentence : result.doubtful) doubtful.push(sentence);
    json.add("doubtful", std::move(doubtful));
  }
  return json.dump(1) + "\n";
}

// All that decides what is built, for a build that goes on with what another began.
std::string request_of(const CorpusBuildOptions& options, const Curation& curation, int ranks) {
  const CorpusOptions& corpus = options.corpus;
  std::string text;
  const auto line = [&](std::string_view name, const auto& value) { text += fmt::format("{}: {}\n", name, value); };
  for (const fs::path& input : corpus.inputs) {
    line("input", is_pipe(input) ? input.string() : fs::weakly_canonical(input).string());
  }
  line("extensions", fmt::format("{}", fmt::join(corpus.extensions, ",")));
  line("field", fmt::format("{}", fmt::join(corpus.fields.text, ",")));
  if (corpus.fields.chat) {
    line("chat", fmt::format("{}{}", name(*corpus.fields.chat), options.last_reply_alone ? ", last reply" : ""));
  }
  for (const FieldFilter& filter : corpus.fields.where) line("where", filter.path + "=" + filter.value);
  line("document bytes", corpus.document_bytes);
  line("limit-bytes", corpus.limit_bytes);
  if (corpus.input_limit_bytes > 0) line("input-limit-bytes", corpus.input_limit_bytes);
  line("skip-bad", corpus.skip_bad);
  switch (options.tokenizer) {
    case TokenizerChoice::bytes: line("tokenizer", "bytes"); break;
    case TokenizerChoice::file: line("tokenizer", load_tokenizer(options.tokenizer_file)->hash()); break;
    case TokenizerChoice::train:
      line("tokenizer", "train");
      line("vocabulary", options.vocabulary);
      line("tokenizer-sample", options.tokenizer_sample_bytes);
  }
  line("hold-out", options.hold_out);
  line("near threshold", options.near_threshold);
  line("shard-tokens", options.shard_tokens);
  line("source", options.source);
  line("seed", options.seed);
  const CurationOptions& rules = options.curation;
  for (const std::string& preset : rules.presets) line("rules", preset);
  for (const std::string& script : rules.scripts) line("script", script);
  if (!rules.decontaminate.empty()) line("decontaminate", fmt::format("{:016x}", curation.evaluation_digest()));
  if (rules.least_bytes > 0) line("min-bytes", rules.least_bytes);
  if (rules.most_bytes > 0) line("max-bytes", rules.most_bytes);
  if (rules.repeated_lines < 1) line("max-repeated-lines", rules.repeated_lines);
  if (ranks > 1) line("ranks", ranks);
  return text;
}

// What an earlier build made of other documents than these.
void remove_shards(const fs::path& folder) {
  for (const fs::path& old : {folder / "train", folder / "validation", folder / kTrainedTokenizer}) {
    std::error_code error;
    fs::remove_all(old, error);
    if (error) fail(ExitCode::io, "{}: cannot be removed: {}", old.string(), system_reason(error.value()));
  }
}

void tell_what_was_read(const CorpusBuildResult& result, const BuildHooks& hooks) {
  const std::vector<std::string> passed = passed_over(result.read);
  if (result.read.documents == 0) {
    fail(ExitCode::bad_data, "the input holds no text; name other files: {} were read{}{}", result.read.files,
         passed.empty() ? "" : "; passed over: ", fmt::join(passed, "; "));
  }
  for (const std::string& text : passed) hooks.say("passed over: " + text);
  for (const std::string& text : taken_as_it_is(result.read)) hooks.say(text);
  for (const LeftOut& one : result.left_out) {
    if (one.documents == 0) continue;
    hooks.say(fmt::format("left out: {} documents, {} bytes: {}, {}", one.documents, one.bytes, one.rule.name,
                          one.rule.limit));
  }
  hooks.say(fmt::format("{} documents, {} bytes; {} exact and {} near duplicates dropped", result.read.documents,
                        result.read.bytes, result.exact_duplicates, result.near_duplicates));
}

CorpusBuildResult build_in(const BuildPlace& place, BuildJournal& journal, const Curation& curation) {
  const CorpusBuildOptions& options = place.options;
  const BuildHooks& hooks = place.hooks;
  CorpusBuildResult result;
  if (place.ranks.leads()) result.doubtful = doubtful_inputs(options.corpus);
  for (const std::string& sentence : result.doubtful) hooks.say(sentence);
  std::int64_t input_bytes = corpus_bytes(options.corpus);
  if (options.corpus.limit_bytes > 0) input_bytes = std::min(input_bytes, options.corpus.limit_bytes);
  input_bytes /= place.ranks.size();
  const bool trains = options.tokenizer == TokenizerChoice::train;
  const bool knows = journal.first_pass() && (!trains || is_trained(place.folder));
  const bool reads = place.ranks.sum(knows ? 0 : 1) > 0;
  hooks.say(reads ? "reading the text and looking for duplicates"
                  : "looking for duplicates in what the build that was stopped has read");
  BuildPace pace(hooks, "looking for duplicates", input_bytes);
  FirstPass found = first_pass(place, journal, curation, {.reads = reads, .samples = trains}, pace, result);
  tell_what_was_read(result, hooks);
  check_fields(result.read, options.corpus.fields);
  if (!found.as_before) {
    remove_working_files(place.folder, place.ranks.rank());
    if (place.ranks.leads()) remove_shards(place.folder);
  }
  place.ranks.wait_for_all();
  const std::unique_ptr<Tokenizer> tokenizer = choose_tokenizer(place, found);
  result.vocabulary = tokenizer->vocabulary_size();
  result.tokenizer_hash = tokenizer->hash();
  if (trains && result.vocabulary < options.vocabulary) {
    hooks.say(fmt::format("the tokenizer has {} pieces: {} were asked for (--vocabulary), and the text gives no more",
                          result.vocabulary, options.vocabulary));
  }
  write_shards(place, found, *tokenizer, BuildPace(hooks, "writing shards", input_bytes), result);
  if (result.train_documents == 0) fail(ExitCode::bad_data, "all text was held out or dropped: nothing to train on");
  if (found.hold_out.takes_the_end()) {
    hooks.say(fmt::format("too few documents to hold out whole ones: the end of the text is held out, {} bytes",
                          result.validation_bytes));
  }
  if (place.ranks.leads()) {
    replace_file(place.folder / tokenizer->file_name(), tokenizer->file_content());
    replace_file(place.folder / "corpus.json", summary(options, result));
  }
  return result;
}

// The input of a build that goes on may be another than it was, which the second pass finds; one process then reads it
// anew at once, ranks when they are started again.
CorpusBuildResult build_on(const BuildPlace& place, BuildJournal& journal, const Curation& curation) {
  const bool may_be_old = journal.first_pass().has_value() && place.ranks.size() == 1;
  try {
    return build_in(place, journal, curation);
  } catch (const InputChanged&) {
    journal.forget_first_pass();
    if (!may_be_old) throw;
  }
  place.hooks.say("the input is not what it was when the build was stopped");
  return build_in(place, journal, curation);
}

// Before the folder gets its name: copies of pipes, and what a build of another number of ranks left.
void remove_all_but_results(const fs::path& folder, const std::string& lock_file) {
  for (const fs::path& entry : list_directory(folder)) {
    const std::string name = entry.filename().string();
    const bool result = name == "train" || name == "validation" || name == "held_out.txt" || name == "corpus.json" ||
                        name == lock_file || entry == find_tokenizer(folder);
    std::error_code error;
    if (!result) fs::remove_all(entry, error);
    if (error) fail(ExitCode::io, "{}: cannot be removed: {}", entry.string(), system_reason(error.value()));
  }
}

// The folder as rank 0 makes it, for all.
fs::path begin_folder(std::optional<PartialFolder>& out, CorpusBuildOptions& options, BuildRanks& ranks) {
  fs::path folder = PartialFolder::path_for(options.out);
  if (ranks.leads()) {
    out.emplace(options.out, BuildJournal::kStateFile);
    out->keep();  // an unfinished build of another kind is refused, not removed
  }
  name_pipes(options.corpus, folder);
  ranks.wait_for_all();
  return folder;
}

}  // namespace

CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers, const BuildHooks& hooks) {
  OneRank alone;
  return build_corpus(options, workers, hooks, alone);
}

CorpusBuildResult build_corpus(const CorpusBuildOptions& asked, Workers& workers, const BuildHooks& all_hooks,
                               BuildRanks& ranks) {
  refuse_output_in_input(asked);
  check_chat(asked);
  const Curation curation(asked.curation);
  const std::string request = request_of(asked, curation, ranks.size());
  CorpusBuildOptions options = asked;
  options.corpus.part = {ranks.rank(), ranks.size(), 0};
  BuildHooks hooks = all_hooks;
  if (!ranks.leads()) hooks = {[](const std::string&) {}, nullptr, all_hooks.stop};
  std::optional<PartialFolder> out;
  const fs::path folder = begin_folder(out, options, ranks);
  BuildJournal journal(folder, request, ranks.rank());
  if (journal.known() > 0) {
    hooks.say(fmt::format("going on with {}: {} documents are known", folder.string(), journal.known()));
  }
  try {
    if (ranks.leads()) copy_pipes(asked.corpus, options.corpus, hooks);
    ranks.wait_for_all();
    CorpusBuildResult result = build_on({options, folder, ranks, workers, hooks}, journal, curation);
    ranks.wait_for_all();
    journal.remove();
    remove_working_files(folder, ranks.rank());
    ranks.wait_for_all();
    if (ranks.leads()) {
      remove_all_but_results(folder, PartialFolder::kLockFile);
      out->commit();
    }
    ranks.wait_for_all();
    return result;
  } catch (const Error& error) {
    if (!journal.any()) {
      if (out) out->give_up();
      if (error.code() != ExitCode::preempted) throw;
      throw Error(error.code(),
                  fmt::format("{}; nothing was done that could be kept: run the same command again", error.what()));
    }
    const bool goes_on = error.code() == ExitCode::preempted || error.code() == ExitCode::io;
    throw Error(error.code(),
                fmt::format("{}\nwhat is done is kept in {}: {}", error.what(), folder.string(),
                            goes_on ? "the same command goes on with it"
                                    : "the same command goes on with it once that is mended; before another command, "
                                      "remove that folder"));
  }
}

}  // namespace shoestring
