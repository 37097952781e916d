#include "tools/bench/data_bench.h"

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/corpus_build.h"
#include "data/hold_out.h"
#include "data/near_duplicates.h"
#include "data/split_writer.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tools/bench/bench_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* kText = "/usr/include";
constexpr std::int64_t kTextBytes = std::int64_t{8} << 20;    // to encode
constexpr std::int64_t kBuildBytes = std::int64_t{32} << 20;  // so much that a dozen fsyncs are a small part
constexpr std::int64_t kSampleBytes = std::int64_t{1} << 20;
constexpr std::uint32_t kVocabulary = 4096;

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

std::vector<std::string> texts(std::int64_t limit_bytes) {
  CorpusReader reader({.inputs = {kText}, .extensions = {}, .limit_bytes = limit_bytes});
  std::vector<std::string> all;
  Document document;
  while (reader.next(document)) all.push_back(std::move(document.text));
  return all;
}

double megabytes(const std::vector<std::string>& all) {
  double bytes = 0;
  for (const std::string& text : all) bytes += static_cast<double>(text.size());
  return bytes * 1e-6;
}

// Processor seconds of this thread to encode all of it.
double encode_seconds(const Tokenizer& tokenizer, const std::vector<std::string>& all) {
  std::vector<std::uint32_t> ids;
  const double begin = thread_seconds();
  for (const std::string& text : all) {
    ids.clear();
    tokenizer.encode(text, ids);
  }
  return thread_seconds() - begin;
}

// A part of the text is enough for the library, and each side has its own turn first every other time.
BenchRow encoding(const Tokenizer& tokenizer, const std::vector<std::string>& all, Workers& workers,
                  const BenchEffort& effort) {
  const std::vector<std::string> part(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 8 + 1));
  const std::unique_ptr<Tokenizer> library = sentencepiece_reference(tokenizer);
  encode_seconds(tokenizer, all);
  Ratios ratios;
  const double start = now_seconds();
  for (int turn = 0; wants_more(ratios, start, effort); ++turn) {
    const PaceWatch watch(workers);
    double mine = turn % 2 == 0 ? encode_seconds(tokenizer, all) : 0;
    const double other = encode_seconds(*library, part);
    if (turn % 2 != 0) mine = encode_seconds(tokenizer, all);
    const double rate = megabytes(all) / mine;
    ratios.add(rate / (megabytes(part) / other), rate, watch.pace());
  }
  return ratios.row("encode, a trained BPE of 4096, C headers", "SentencePiece itself, one thread each", 2.0, "MB/s");
}

double processor_seconds(const std::function<void()>& work) {
  const double begin = thread_seconds();
  work();
  return thread_seconds() - begin;
}

/// What a build does to its text beside encoding it, each part on one thread by itself.
class Stages {
 public:
  Stages(const BenchFolder& folder, const Tokenizer& tokenizer, const std::vector<std::string>& all)
      : folder_(folder), tokenizer_(tokenizer), all_(all), ids_(all.size()) {
    for (std::size_t i = 0; i < all.size(); ++i) tokenizer.encode(all[i], ids_[i]);
  }

  void read_twice() const {
    for (int pass = 0; pass < 2; ++pass) {
      CorpusReader reader({.inputs = {folder_ / "text"}, .extensions = {}});
      Document document;
      while (reader.next(document)) continue;
    }
  }
  void look_at() const {
    const HoldOut hold_out(0.01, 17);
    std::size_t bytes = 0, drawn = 0;
    for (const std::string& text : all_) {
      bytes += fingerprint(text).bytes;
      drawn += hold_out.draws(text) ? 1 : 0;
    }
    check(bytes > 0 && drawn < all_.size(), "{} of {} texts are held out", drawn, all_.size());
  }
  void write() const {
    SplitWriter writer({folder_ / "written", "train", "text", std::int64_t{256} << 20}, tokenizer_);
    for (std::size_t i = 0; i < all_.size(); ++i) writer.append(ids_[i], all_[i].size());
    writer.finish();
    fs::remove_all(folder_ / "written");
  }

 private:
  const BenchFolder& folder_;
  const Tokenizer& tokenizer_;
  const std::vector<std::string>& all_;
  std::vector<std::vector<std::uint32_t>> ids_;
};

CorpusBuildOptions build_options(const BenchFolder& folder, const Tokenizer& tokenizer,
                                 const std::vector<std::string>& all) {
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "text"};
  options.tokenizer = TokenizerChoice::file;
  options.tokenizer_file = folder / tokenizer.file_name();
  options.out = folder / "shards";
  for (std::size_t i = 0; i < all.size(); ++i) {
    FileWriter file(folder / ("text/" + std::to_string(i)));
    file.write(all[i]);
    file.finish();
  }
  replace_file(options.tokenizer_file, tokenizer.file_content());
  return options;
}

// By wall-clock, on all workers: reading, duplicates, encoding, writing; the tokenizer is there. The parts, and what
// they would come to if the threads shared them without ever waiting, say where the rest is.
void whole_build(const BenchFolder& folder, const Tokenizer& tokenizer, const std::vector<std::string>& all,
                 Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  const CorpusBuildOptions options = build_options(folder, tokenizer, all);
  const Stages stages(folder, tokenizer, all);
  const double text = megabytes(all);
  Ratios reading, looking, writing, together, whole;
  const double start = now_seconds();
  while (wants_more(whole, start, effort)) {
    const PaceWatch watch(workers);
    const double encode = encode_seconds(tokenizer, all);
    const double read = processor_seconds([&] { stages.read_twice(); });
    const double look = processor_seconds([&] { stages.look_at(); });
    const double write = processor_seconds([&] { stages.write(); });
    const double begin = now_seconds();
    build_corpus(options, workers, {[](const std::string&) {}});
    const double seconds = now_seconds() - begin;
    fs::remove_all(options.out);
    const Pace pace = watch.pace();
    reading.add(encode / read, text / read, pace);
    looking.add(encode / look, text / look, pace);
    writing.add(encode / write, text / write, pace);
    const double sum = encode + read + look + write;
    together.add(encode / sum, text * workers.count() / sum, pace);
    whole.add(encode / (seconds * workers.count()), text / seconds, pace);
  }
  const std::string one = "encoding, one thread each";
  const std::string many = "encoding alone x threads";
  report(reading.row("read the text, both passes", one, 0, "MB/s"));
  report(looking.row("fingerprints and hold-out", one, 0, "MB/s"));
  report(writing.row("lay out shards", one, 0, "MB/s"));
  report(together.row("those and encoding, if shared without waiting", many, 0, "MB/s"));
  report(whole.row("whole build, without training, all threads", many, 0.6, "MB/s"));
}

}  // namespace

void bench_data(Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  std::error_code missing;
  if (!fs::is_directory(kText, missing)) {
    return report(not_here("encode, a trained BPE of 4096", "SentencePiece itself", "no C headers to encode"));
  }
  const BenchFolder folder;
  fs::create_directory(folder / "text");
  const std::vector<std::string> all = texts(kBuildBytes);
  std::size_t next = 0;
  const auto tokenizer = train_sentencepiece(kVocabulary, kSampleBytes, [&](std::string& text) {
    if (next == all.size()) return false;
    text = all[next++];
    return true;
  });
  report(encoding(*tokenizer, texts(kTextBytes), workers, effort));
  whole_build(folder, *tokenizer, all, workers, effort, report);
}

}  // namespace shoestring
