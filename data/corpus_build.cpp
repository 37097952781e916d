#include "data/corpus_build.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "data/hold_out.h"
#include "data/near_duplicates.h"
#include "data/partial_folder.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;

constexpr std::size_t kBatchBytes = std::size_t{4} << 20;

// Reads documents by the batch, so that the work on them can be shared out.
class BatchReader {
 public:
  explicit BatchReader(const CorpusOptions& options) : reader_(options) {}
  bool next(std::vector<Document>& batch) {
    batch.clear();
    std::size_t bytes = 0;
    Document document;
    while (bytes < kBatchBytes && reader_.next(document)) {
      bytes += document.text.size();
      batch.push_back(std::move(document));
    }
    return !batch.empty();
  }
  const CorpusCounts& counts() const { return reader_.counts(); }

 private:
  CorpusReader reader_;
};

/// All documents of a pass, their texts and their order, in one number.
class PassDigest {
 public:
  /// Of a batch, hashed by many.
  void add(const std::vector<Document>& batch, Workers& workers) {
    hashes_.resize(batch.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      const std::string& text = batch[static_cast<std::size_t>(i)].text;
      hashes_[static_cast<std::size_t>(i)] = XXH3_64bits(text.data(), text.size());
    });
    for (const std::uint64_t hash : hashes_) {
      const std::array<std::uint64_t, 2> both = {value_, hash};
      value_ = XXH3_64bits(both.data(), sizeof both);
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::vector<std::uint64_t> hashes_;
  std::uint64_t value_ = 0;
};

constexpr std::uint32_t kTokenizerSample = 1;                // of draws; 0 is the hold-out's
constexpr std::size_t kSampleBytes = std::size_t{64} << 10;  // what the tokenizer's sample takes or leaves in one piece

/// What the first pass finds.
struct FirstPass {
  std::vector<Verdict> verdicts;
  std::uint64_t digest = 0;
  HoldOut hold_out;
};

FirstPass find_duplicates(const CorpusBuildOptions& options, const fs::path& folder, Workers& workers,
                          CorpusBuildResult& result) {
  DuplicateFinder finder(folder);
  BatchReader reader(options.corpus);
  std::vector<Document> batch;
  std::vector<Fingerprint> prints;
  std::vector<char> drawn;
  PassDigest digest;
  HoldOut hold_out(options.hold_out, options.seed);
  while (reader.next(batch)) {
    digest.add(batch, workers);
    prints.resize(batch.size());
    drawn.resize(batch.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      prints[at] = fingerprint(batch[at].text);
      drawn[at] = hold_out.draws(batch[at].text) ? 1 : 0;
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      finder.add(prints[i]);
      hold_out.add(drawn[i] != 0, batch[i].text.size());
    }
  }
  result.read = reader.counts();
  std::vector<Verdict> verdicts = finder.finish(options.near_threshold);
  for (const Verdict verdict : verdicts) {
    result.exact_duplicates += verdict == Verdict::exact_duplicate ? 1 : 0;
    result.near_duplicates += verdict == Verdict::near_duplicate ? 1 : 0;
  }
  hold_out.finish(verdicts);
  return {std::move(verdicts), digest.value(), std::move(hold_out)};
}

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

std::unique_ptr<Tokenizer> choose_tokenizer(const CorpusBuildOptions& options, const FirstPass& found,
                                            std::int64_t corpus_bytes) {
  if (options.tokenizer == TokenizerChoice::bytes) return byte_tokenizer();
  if (options.tokenizer == TokenizerChoice::file) return load_tokenizer(options.tokenizer_file);
  TokenizerSample sample(options, found, corpus_bytes);
  return train_sentencepiece(options.vocabulary, options.tokenizer_sample_bytes,
                             [&](std::string& text) { return sample.next(text); });
}

// The shards of one split, begun when their first document comes.
class SplitWriter {
 public:
  SplitWriter(fs::path folder, std::string name, const CorpusBuildOptions& options, const Tokenizer& tokenizer)
      : folder_(std::move(folder)), name_(std::move(name)), options_(options), tokenizer_(tokenizer) {
    make_directories(folder_);
  }

  void append(const std::vector<std::uint32_t>& ids, std::size_t text_bytes) {
    if (!writer_) {
      writer_ = std::make_unique<ShardWriter>(
          (folder_ / fmt::format("{}-{:05}.h5", name_, shards_++)).string(),
          ShardWriterOptions{
              .vocabulary_size = tokenizer_.vocabulary_size(),
              .end_of_document = static_cast<std::uint32_t>(tokenizer_.special().end_of_document),
              .tokenizer_hash = tokenizer_.hash(),
              .source = options_.source,
          });
    }
    writer_->append(ids, text_bytes);
    ++documents;
    bytes += static_cast<std::int64_t>(text_bytes);
    if (static_cast<std::int64_t>(writer_->tokens()) >= options_.shard_tokens) finish();
  }
  void finish() {
    if (!writer_) return;
    tokens += static_cast<std::int64_t>(writer_->finish().tokens);
    writer_.reset();
  }

  std::int64_t documents = 0, bytes = 0, tokens = 0;

 private:
  fs::path folder_;
  std::string name_;
  const CorpusBuildOptions& options_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<ShardWriter> writer_;
  int shards_ = 0;
};

// Verdicts belong to documents by their place, so every pass must find the same ones.
void check_count(std::size_t now, std::size_t before) {
  if (now == before) return;
  fail(ExitCode::bad_data,
       "the input changed while it was read: {} documents in the first pass, {}{} in the last; build again when "
       "nothing writes to it",
       before, now > before ? "at least " : "", now);
}

/// A document's two sides as tokens; a side without text has none.
struct EncodedDocument {
  std::size_t trained_bytes = 0;
  std::vector<std::uint32_t> trained, held_out;
};

void write_shards(const CorpusBuildOptions& options, const fs::path& folder, const FirstPass& found,
                  const Tokenizer& tokenizer, Workers& workers, CorpusBuildResult& result) {
  const std::vector<Verdict>& verdicts = found.verdicts;
  SplitWriter train(folder / "train", "train", options, tokenizer);
  SplitWriter validation(folder / "validation", "validation", options, tokenizer);
  FileWriter names(folder / "held_out.txt");
  BatchReader reader(options.corpus);
  std::vector<Document> batch;
  std::vector<EncodedDocument> encoded;
  std::size_t first = 0;
  PassDigest digest;
  while (reader.next(batch)) {
    digest.add(batch, workers);
    encoded.resize(batch.size());
    if (first + batch.size() > verdicts.size()) check_count(first + batch.size(), verdicts.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      encoded[at] = {};
      if (verdicts[first + at] != Verdict::keep) return;
      const std::string_view text = batch[at].text;
      const std::size_t border = found.hold_out.trained_bytes(first + at, text);
      encoded[at].trained_bytes = border;
      if (border > 0) tokenizer.encode(text.substr(0, border), encoded[at].trained);
      if (border < text.size()) tokenizer.encode(text.substr(border), encoded[at].held_out);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (verdicts[first + i] != Verdict::keep) continue;
      const std::size_t border = encoded[i].trained_bytes;
      if (border > 0) train.append(encoded[i].trained, border);
      if (border == batch[i].text.size()) continue;
      validation.append(encoded[i].held_out, batch[i].text.size() - border);
      names.write(batch[i].name + (border > 0 ? fmt::format(" from byte {}\n", border) : "\n"));
    }
    first += batch.size();
  }
  check_count(first, verdicts.size());
  if (digest.value() != found.digest) {
    fail(ExitCode::bad_data,
         "the input changed while it was read: {} documents in both passes, but not the same; build again when nothing "
         "writes to it",
         first);
  }
  train.finish();
  validation.finish();
  names.finish();
  result.train_documents = train.documents;
  result.train_bytes = train.bytes;
  result.train_tokens = train.tokens;
  result.validation_documents = validation.documents;
  result.validation_bytes = validation.bytes;
  result.validation_tokens = validation.tokens;
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

std::string summary(const CorpusBuildResult& result) {
  const Json json = Json::object({
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
  return json.dump(1) + "\n";
}

}  // namespace

CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers,
                               const std::function<void(const std::string&)>& say) {
  refuse_output_in_input(options);
  PartialFolder out(options.out);
  const fs::path& folder = out.path();
  CorpusBuildResult result;
  say("reading the text and looking for duplicates");
  const FirstPass found = find_duplicates(options, folder, workers, result);
  const std::vector<std::string> left_out = passed_over(result.read);
  if (result.read.documents == 0) {
    fail(ExitCode::bad_data, "the input holds no text: {} files were read{}{}", result.read.files,
         left_out.empty() ? "" : "; passed over: ", fmt::join(left_out, "; "));
  }
  for (const std::string& text : left_out) say("passed over: " + text);
  say(fmt::format("{} documents, {} bytes; {} exact and {} near duplicates dropped", result.read.documents,
                  result.read.bytes, result.exact_duplicates, result.near_duplicates));
  if (options.tokenizer == TokenizerChoice::train)
    say(fmt::format("training a tokenizer of {} pieces", options.vocabulary));
  const std::unique_ptr<Tokenizer> tokenizer = choose_tokenizer(options, found, result.read.bytes);
  result.vocabulary = tokenizer->vocabulary_size();
  result.tokenizer_hash = tokenizer->hash();
  say("writing shards");
  write_shards(options, folder, found, *tokenizer, workers, result);
  if (result.train_documents == 0) fail(ExitCode::bad_data, "all text was held out or dropped: nothing to train on");
  if (found.hold_out.takes_the_end()) {
    say(fmt::format("too few documents to hold out whole ones: the end of the text is held out, {} bytes",
                    result.validation_bytes));
  }
  replace_file(folder / tokenizer->file_name(), tokenizer->file_content());
  replace_file(folder / "corpus.json", summary(result));
  out.commit();
  return result;
}

}  // namespace shoestring
