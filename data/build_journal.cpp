#include "data/build_journal.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <sstream>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSchema = "shoestring.build/4";
constexpr std::int64_t kStateLimit = std::int64_t{16} << 20;

/// A record as it lies in the file of this machine.
struct Stored {
  Fingerprint fingerprint;
  std::uint16_t held_out;
  std::uint16_t left_out;
  std::uint32_t check;  ///< of all before; last
};
static_assert(std::has_unique_object_representations_v<Stored>);
static_assert(offsetof(Stored, fingerprint) == 0);
constexpr std::int64_t kRecordBytes = sizeof(Stored);
constexpr std::int64_t kRecordsAtOnce = 4096;

std::uint32_t check_of(const Stored& stored) {
  return static_cast<std::uint32_t>(XXH3_64bits(&stored, offsetof(Stored, check)));
}

Stored stored(const DocumentRecord& record) {
  Stored to{record.fingerprint, static_cast<std::uint16_t>(record.held_out ? 1 : 0), record.left_out, 0};
  to.check = check_of(to);
  return to;
}

std::vector<Stored> read_stored(const WorkingFile& file, std::int64_t first, std::int64_t count) {
  std::vector<Stored> records(static_cast<std::size_t>(count));
  file.read(first * kRecordBytes, records.data(), count * kRecordBytes);
  return records;
}

bool is_sound(const Stored& stored) { return stored.check == check_of(stored); }

DocumentRecord record_of(const Stored& from) {
  return {from.fingerprint, from.held_out != 0, static_cast<std::uint8_t>(from.left_out)};
}

fs::path journal_path(const fs::path& folder, int rank) {
  return folder / (rank == 0 ? "documents.journal" : fmt::format("documents.{}.journal", rank));
}

fs::path state_path(const fs::path& folder, int rank) {
  return folder / (rank == 0 ? std::string(BuildJournal::kStateFile) : fmt::format("build.{}.json", rank));
}

const std::array<std::pair<const char*, std::int64_t CorpusCounts::*>, 13> kCounters = {{
    {"files", &CorpusCounts::files},
    {"packed_files", &CorpusCounts::packed_files},
    {"read_bytes", &CorpusCounts::read_bytes},
    {"documents", &CorpusCounts::documents},
    {"bytes", &CorpusCounts::bytes},
    {"lines", &CorpusCounts::lines},
    {"empty", &CorpusCounts::empty},
    {"links", &CorpusCounts::links},
    {"other_extensions", &CorpusCounts::other_extensions},
    {"special_files", &CorpusCounts::special_files},
    {"bad_lines", &CorpusCounts::bad_lines},
    {"unwanted_lines", &CorpusCounts::unwanted_lines},
    {"not_utf8", &CorpusCounts::not_utf8},
}};

Json to_json(const FirstPassResult& found) {
  Json counts = Json::object();
  for (const auto& [name, counter] : kCounters) counts.add(name, found.counts.*counter);
  return Json::object({{"digest", fmt::format("{:016x}", found.digest)},
                       {"lines_before", found.lines_before},
                       {"counts", std::move(counts)},
                       {"not_text", Json::object_of(found.counts.kinds_of_file)},
                       {"lines_without", Json::object_of(found.counts.lines_without)},
                       {"first_bad", found.counts.first_bad},
                       {"first_not_utf8", found.counts.first_not_utf8}});
}

FirstPassResult pass_result(const Json& json) {
  FirstPassResult found;
  const std::string& digest = json.at("digest").text();
  std::from_chars(digest.data(), digest.data() + digest.size(), found.digest, 16);
  found.lines_before = json.at("lines_before").count();
  for (const auto& [name, counter] : kCounters) found.counts.*counter = json.at("counts").at(name).count();
  for (const Json::Member& kind : json.at("not_text").members()) {
    found.counts.kinds_of_file[kind.key] = kind.value.count();
  }
  for (const Json::Member& field : json.at("lines_without").members()) {
    found.counts.lines_without[field.key] = field.value.count();
  }
  found.counts.first_bad = json.at("first_bad").text();
  found.counts.first_not_utf8 = json.at("first_not_utf8").text();
  return found;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// The lines of `a` that `b` has not.
std::string only_in(const std::string& a, const std::string& b) {
  const std::vector<std::string> others = lines_of(b);
  std::string found;
  for (const std::string& line : lines_of(a)) {
    if (std::find(others.begin(), others.end(), line) == others.end()) found += (found.empty() ? "" : ", ") + line;
  }
  return found.empty() ? "nothing" : found;
}

}  // namespace

std::optional<FirstPassResult> BuildJournal::first_pass_of(const fs::path& folder, int rank) {
  const fs::path path = state_path(folder, rank);
  const Json json = parse_json(read_file(path, kStateLimit), path.string());
  const Json* found = json.find("first_pass");
  if (found == nullptr || !found->is_object()) return std::nullopt;
  return pass_result(*found);
}

BuildJournal::BuildJournal(const fs::path& folder, const std::string& request, int rank)
    : state_path_(state_path(folder, rank)),
      file_(journal_path(folder, rank),
            type_of(state_path_) == fs::file_type::regular ? WorkingFile::Content::kept : WorkingFile::Content::none),
      request_(request) {
  if (type_of(state_path_) != fs::file_type::regular) {
    write_state();
    return;
  }
  const Json json = parse_json(read_file(state_path_, kStateLimit), state_path_.string());
  const std::string then = json.text_or("schema", "") == kSchema ? json.at("request").text() : "another version";
  if (then != request_) {
    fail(ExitCode::usage,
         "{}: holds an unfinished build that was asked for otherwise (then {}; now {}); ask for the same to go on "
         "with it, or remove that folder",
         folder.string(), only_in(then, request_), only_in(request_, then));
  }
  done_ = first_pass_of(folder, rank);
  known_ = file_.bytes() / kRecordBytes;  // the last one may be torn
  if (done_ && !all_sound()) done_.reset();
}

void BuildJournal::write_state() {
  Json json = Json::object({{"schema", kSchema}, {"request", request_}});
  if (done_) json.add("first_pass", to_json(*done_));
  replace_file(state_path_, json.dump(1) + "\n");
}

bool BuildJournal::all_sound() const {
  if (known_ != done_->counts.documents) return false;
  for (std::int64_t at = 0; at < known_; at += kRecordsAtOnce) {
    const std::vector<Stored> some = read_stored(file_, at, std::min(kRecordsAtOnce, known_ - at));
    if (!std::all_of(some.begin(), some.end(), is_sound)) return false;
  }
  return true;
}

// A record that does not hold is the end of what is known: the machine may have stopped while it was written.
std::vector<DocumentRecord> BuildJournal::next_known(std::size_t count) {
  const std::int64_t most = std::max<std::int64_t>(0, known_ - at_);
  std::vector<DocumentRecord> records;
  for (const Stored& one : read_stored(file_, at_, std::min(most, static_cast<std::int64_t>(count)))) {
    if (!is_sound(one)) break;
    records.push_back(record_of(one));
  }
  return records;
}

void BuildJournal::confirm(std::size_t count, bool all) {
  at_ += static_cast<std::int64_t>(count);
  if (!all) known_ = std::min(known_, at_);
}

void BuildJournal::append(std::span<const DocumentRecord> records) {
  known_ = at_;
  std::vector<Stored> raw;
  for (const DocumentRecord& record : records) raw.push_back(stored(record));
  file_.write(at_ * kRecordBytes, raw.data(), raw.size() * sizeof(Stored));
  at_ += static_cast<std::int64_t>(records.size());
}

bool BuildJournal::first_pass_done(const FirstPassResult& found) {
  file_.cut(at_ * kRecordBytes);
  file_.sync();
  if (done_ == found) return true;
  done_ = found;
  write_state();
  return false;
}

void BuildJournal::forget_first_pass() {
  done_.reset();
  at_ = 0;
  write_state();
}

void BuildJournal::remove() {
  std::error_code ignored;  // what stays does no harm
  fs::remove(state_path_, ignored);
  file_.remove();
}

FingerprintRows journal_fingerprints(const fs::path& folder, int rank) {
  return {journal_path(folder, rank), kRecordBytes};
}

}  // namespace shoestring
