#include "data/corpus_build.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "data/build_journal.h"
#include "data/corpus_passes.h"
#include "data/partial_folder.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;

constexpr std::string_view kTrainedTokenizer = "tokenizer.model";
constexpr std::uint32_t kTokenizerSample = 1;                // of draws; 0 is the hold-out's
constexpr std::size_t kSampleBytes = std::size_t{64} << 10;  // what the tokenizer's sample takes or leaves in one piece

/// What a tokenizer is trained on: a little more than needed, drawn from all over the text that is trained on.
class TokenizerSample {
 public:
  TokenizerSample(const CorpusBuildOptions& options, const FirstPass& found, std::int64_t corpus_bytes)
      : options_(options),
        found_(found),
        share_(1.2 * static_cast<double>(options.tokenizer_sample_bytes) /
               static_cast<double>(std::max<std::int64_t>(1, corpus_bytes))),
        reader_(options.corpus) {}

  bool next(std::string& text) {
    while (next_piece(text)) {
      if (draw(text, options_.seed, kTokenizerSample) < share_) return true;
    }
    return false;
  }

 private:
  // A document, or of a long one the next lines: a few long documents would be drawn all or none.
  bool next_piece(std::string& text) {
    while (begin_ >= document_.text.size()) {
      begin_ = 0;
      if (!reader_.next(document_)) return false;
      const bool kept = number_ < found_.verdicts.size() && found_.verdicts[number_] == Verdict::keep;
      document_.text.resize(kept ? found_.hold_out.trained_bytes(number_, document_.text) : 0);
      ++number_;
    }
    std::size_t bytes = document_.text.size() - begin_;
    if (bytes > kSampleBytes) {
      const std::size_t line_end = document_.text.rfind('\n', begin_ + kSampleBytes - 1);
      bytes = line_end != std::string::npos && line_end >= begin_ ? line_end + 1 - begin_ : kSampleBytes;
    }
    text.assign(document_.text, begin_, bytes);
    begin_ += bytes;
    return true;
  }

  const CorpusBuildOptions& options_;
  const FirstPass& found_;
  double share_;
  CorpusReader reader_;
  Document document_;
  std::size_t number_ = 0;  // of the next document
  std::size_t begin_ = 0;   // of the next piece in this one
};

// Written at once: a build that goes on does not train another.
std::unique_ptr<Tokenizer> choose_tokenizer(const CorpusBuildOptions& options, const FirstPass& found,
                                            std::int64_t corpus_bytes, const fs::path& folder,
                                            const BuildHooks& hooks) {
  if (options.tokenizer == TokenizerChoice::bytes) return byte_tokenizer();
  if (options.tokenizer == TokenizerChoice::file) return load_tokenizer(options.tokenizer_file);
  const fs::path trained = folder / kTrainedTokenizer;
  if (type_of(trained) == fs::file_type::regular) return load_tokenizer(trained);
  hooks.say(fmt::format("training a tokenizer of {} pieces", options.vocabulary));
  TokenizerSample sample(options, found, corpus_bytes);
  std::unique_ptr<Tokenizer> tokenizer = train_sentencepiece(options.vocabulary, options.tokenizer_sample_bytes,
                                                             [&](std::string& text) { return sample.next(text); });
  check(tokenizer->file_name() == kTrainedTokenizer, "a trained tokenizer is called {}", tokenizer->file_name());
  replace_file(trained, tokenizer->file_content());
  return tokenizer;
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
  return json.dump(1) + "\n";
}

// All that decides what is built, for a build that goes on with what another began.
std::string request_of(const CorpusBuildOptions& options) {
  const CorpusOptions& corpus = options.corpus;
  std::string text;
  const auto line = [&](std::string_view name, const auto& value) { text += fmt::format("{}: {}\n", name, value); };
  for (const fs::path& input : corpus.inputs) line("input", fs::weakly_canonical(input).string());
  line("extensions", fmt::format("{}", fmt::join(corpus.extensions, ",")));
  line("field", fmt::format("{}", fmt::join(corpus.fields.text, ",")));
  if (corpus.fields.chat) {
    line("chat", fmt::format("{}{}", name(*corpus.fields.chat), options.last_reply_alone ? ", last reply" : ""));
  }
  for (const FieldFilter& filter : corpus.fields.where) line("where", filter.path + "=" + filter.value);
  line("document bytes", corpus.document_bytes);
  line("limit-bytes", corpus.limit_bytes);
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

CorpusBuildResult build_in(const fs::path& folder, BuildJournal& journal, const CorpusBuildOptions& options,
                           Workers& workers, const BuildHooks& hooks) {
  CorpusBuildResult result;
  const std::int64_t input_bytes = CorpusReader(options.corpus).rest_bytes();
  hooks.say("reading the text and looking for duplicates");
  const FirstPass found =
      find_duplicates(options, folder, journal, Pace(hooks, "looking for duplicates", input_bytes), workers, result);
  const std::vector<std::string> left_out = passed_over(result.read);
  if (result.read.documents == 0) {
    fail(ExitCode::bad_data, "the input holds no text; name other files: {} were read{}{}", result.read.files,
         left_out.empty() ? "" : "; passed over: ", fmt::join(left_out, "; "));
  }
  for (const std::string& text : left_out) hooks.say("passed over: " + text);
  hooks.say(fmt::format("{} documents, {} bytes; {} exact and {} near duplicates dropped", result.read.documents,
                        result.read.bytes, result.exact_duplicates, result.near_duplicates));
  if (!journal.first_pass_done(found.digest)) remove_shards(folder);
  const std::unique_ptr<Tokenizer> tokenizer = choose_tokenizer(options, found, result.read.bytes, folder, hooks);
  result.vocabulary = tokenizer->vocabulary_size();
  result.tokenizer_hash = tokenizer->hash();
  write_shards(options, folder, found, *tokenizer, hooks, Pace(hooks, "writing shards", input_bytes), workers, result);
  if (result.train_documents == 0) fail(ExitCode::bad_data, "all text was held out or dropped: nothing to train on");
  if (found.hold_out.takes_the_end()) {
    hooks.say(fmt::format("too few documents to hold out whole ones: the end of the text is held out, {} bytes",
                          result.validation_bytes));
  }
  replace_file(folder / tokenizer->file_name(), tokenizer->file_content());
  replace_file(folder / "corpus.json", summary(options, result));
  return result;
}

}  // namespace

CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers, const BuildHooks& hooks) {
  refuse_output_in_input(options);
  const std::string request = request_of(options);
  PartialFolder out(options.out, BuildJournal::kStateFile);
  out.keep();  // an unfinished build of another kind is refused, not removed
  BuildJournal journal(out.path(), request);
  if (journal.known() > 0) {
    hooks.say(fmt::format("going on with {}: {} documents are known", out.path().string(), journal.known()));
  }
  try {
    CorpusBuildResult result = build_in(out.path(), journal, options, workers, hooks);
    journal.remove();
    out.commit();
    return result;
  } catch (const Error& error) {
    if (!journal.any()) {
      out.give_up();
      throw;
    }
    throw Error(error.code(), fmt::format("{}\nwhat is done is kept in {}: the same command goes on with it",
                                          error.what(), out.path().string()));
  }
}

}  // namespace shoestring
