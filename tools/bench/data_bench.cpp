#include "tools/bench/data_bench.h"

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/corpus_build.h"
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

// By wall-clock, on all workers: reading, duplicates, encoding, writing; the tokenizer is there.
BenchRow whole_build(const BenchFolder& folder, const Tokenizer& tokenizer, const std::vector<std::string>& all,
                     Workers& workers, const BenchEffort& effort) {
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
  Ratios ratios;
  const double start = now_seconds();
  while (wants_more(ratios, start, effort)) {
    const PaceWatch watch(workers);
    const double encode = encode_seconds(tokenizer, all);
    const double begin = now_seconds();
    build_corpus(options, workers, {[](const std::string&) {}});
    const double seconds = now_seconds() - begin;
    fs::remove_all(options.out);
    ratios.add(encode / (seconds * workers.count()), megabytes(all) / seconds, watch.pace());
  }
  return ratios.row("whole build, without training, all threads", "encoding alone x threads", 0.6, "MB/s");
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
  report(whole_build(folder, *tokenizer, all, workers, effort));
}

}  // namespace shoestring
