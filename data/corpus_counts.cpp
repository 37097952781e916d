// What a reading of a corpus took and passed over, in sentences.
#include <fmt/format.h>

#include "data/corpus.h"
#include "data/file_kind.h"
#include "kernels/base/check.h"

namespace shoestring {

std::int64_t CorpusCounts::binary_files() const {
  std::int64_t all = 0;
  for (const auto& kind : kinds_of_file) all += kind.second;
  return all;
}

void CorpusCounts::add(const CorpusCounts& later) {
  for (auto counter : {&CorpusCounts::files, &CorpusCounts::packed_files, &CorpusCounts::read_bytes,
                       &CorpusCounts::documents, &CorpusCounts::bytes, &CorpusCounts::lines, &CorpusCounts::empty,
                       &CorpusCounts::links, &CorpusCounts::other_extensions, &CorpusCounts::special_files,
                       &CorpusCounts::bad_lines, &CorpusCounts::unwanted_lines, &CorpusCounts::not_utf8}) {
    this->*counter += later.*counter;
  }
  for (const auto& [kind, number] : later.kinds_of_file) kinds_of_file[kind] += number;
  for (const auto& [field, number] : later.lines_without) lines_without[field] += number;
  if (first_bad.empty()) first_bad = later.first_bad;
  if (first_not_utf8.empty()) first_not_utf8 = later.first_not_utf8;
}

void check_fields(const CorpusCounts& counts, const LineFields& fields) {
  const std::int64_t taken = counts.lines - counts.bad_lines - counts.unwanted_lines;
  if (taken <= 0) return;
  for (const std::string& field : fields.text) {
    const auto without = counts.lines_without.find(field);
    if (without == counts.lines_without.end() || without->second < taken) continue;
    fail(ExitCode::bad_data,
         "--field {}: none of the {} lines (or rows) has text under \"{}\"; mend its name, or leave it out",
         fmt::join(fields.text, ","), taken, field);
  }
}

std::vector<std::string> taken_as_it_is(const CorpusCounts& counts) {
  std::vector<std::string> all;
  for (const auto& [field, number] : counts.lines_without) {
    all.push_back(fmt::format("{} line{} without text under \"{}\": the other fields alone are taken", number,
                              number == 1 ? "" : "s", field));
  }
  if (counts.not_utf8 > 0) {
    all.push_back(
        fmt::format("{} document{} with bytes that are not UTF-8, the first: {}; they are taken as they are "
                    "(`iconv -t UTF-8` with the right -f makes text of them)",
                    counts.not_utf8, counts.not_utf8 == 1 ? "" : "s", counts.first_not_utf8));
  }
  return all;
}

void check_bad_lines(const CorpusCounts& counts, double skip_bad) {
  if (static_cast<double>(counts.bad_lines) <= skip_bad * static_cast<double>(counts.lines)) return;
  fail(ExitCode::bad_data,
       "{} of {} lines of JSONL are bad, more than the share of {} that --skip-bad allows; mend them, or allow more; "
       "the "
       "first: {}",
       counts.bad_lines, counts.lines, skip_bad, counts.first_bad);
}

std::vector<std::string> passed_over(const CorpusCounts& counts) {
  std::vector<std::string> all;
  const auto tell = [&](std::int64_t count, std::string_view one, std::string_view many, std::string_view what) {
    if (count > 0) all.push_back(fmt::format("{} {}: {}", count, count == 1 ? one : many, what));
  };
  tell(counts.links, "link", "links", "not followed in folders; name what they lead to as inputs");
  for (const auto& [kind, number] : counts.kinds_of_file) {
    tell(number, kind + " file", kind + " files", remedy_of(kind));
  }
  tell(counts.empty, "empty document", "empty documents", "they hold no text");
  tell(counts.other_extensions, "file of another ending", "files of other endings", "--extensions leaves them out");
  tell(counts.special_files, "pipe, socket or device", "pipes, sockets or devices", "only files are read");
  tell(counts.unwanted_lines, "line of JSONL", "lines of JSONL", "not as --where says");
  tell(counts.bad_lines, "bad line of JSONL", "bad lines of JSONL", "skipped, as --skip-bad allows");
  return all;
}

}  // namespace shoestring
