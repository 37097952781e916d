#include "data/build_journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <sstream>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJournalFile = "documents.journal";
constexpr std::string_view kSchema = "shoestring.build/1";
constexpr std::int64_t kStateLimit = std::int64_t{16} << 20;

/// A record as it lies in the file of this machine.
struct Stored {
  std::uint64_t text_hash;
  std::array<std::uint64_t, 2> content;
  std::array<std::uint32_t, Fingerprint::kMinima> minima;
  std::uint32_t short_text;
  std::uint32_t held_out;
  std::uint64_t check;  ///< of all before; last
};
static_assert(std::has_unique_object_representations_v<Stored>);
constexpr std::int64_t kRecordBytes = sizeof(Stored);

std::uint64_t check_of(const Stored& stored) { return XXH3_64bits(&stored, offsetof(Stored, check)); }

Stored stored(const DocumentRecord& record) {
  Stored to{record.text_hash,          record.fingerprint.content,
            record.fingerprint.minima, record.fingerprint.short_text ? 1u : 0u,
            record.held_out ? 1u : 0u, 0};
  to.check = check_of(to);
  return to;
}

DocumentRecord record_of(const Stored& from) {
  return {from.text_hash, {from.content, from.minima, from.short_text != 0}, from.held_out != 0};
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

BuildJournal::BuildJournal(fs::path folder, const std::string& request)
    : folder_(std::move(folder)), request_(request) {
  const fs::path state = folder_ / kStateFile;
  const fs::path path = folder_ / kJournalFile;
  if (type_of(state) == fs::file_type::regular) {
    const Json json = parse_json(read_file(state, kStateLimit), state.string());
    const std::string then = json.text_or("schema", "") == kSchema ? json.at("request").text() : "another version";
    if (then != request_) {
      fail(ExitCode::usage,
           "{}: holds an unfinished build that was asked for otherwise (then {}; now {}); ask for the same to go on "
           "with "
           "it, or remove that folder",
           folder_.string(), only_in(then, request_), only_in(request_, then));
    }
    digest_ = json.text_or("digest", "");
  } else {
    std::error_code none;
    fs::remove(path, none);
    write_state("");
  }
  file_ = FileHandle(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file_.open()) fail(ExitCode::io, "{}: cannot be opened: {}", path.string(), system_reason(errno));
  known_ = file_bytes(file_, path) / kRecordBytes;  // the last one may be torn
}

void BuildJournal::write_state(const std::string& digest) const {
  replace_file(folder_ / kStateFile,
               Json::object({{"schema", kSchema}, {"request", request_}, {"digest", digest}}).dump(1) + "\n");
}

// A record that does not hold is the end of what is known: the machine may have stopped while it was written.
std::vector<DocumentRecord> BuildJournal::next_known(std::size_t count) {
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(0, known_ - at_));
  std::vector<Stored> raw(std::min(count, most));
  const std::int64_t bytes = static_cast<std::int64_t>(raw.size()) * kRecordBytes;
  if (bytes > 0) read_at(file_, folder_ / kJournalFile, at_ * kRecordBytes, raw.data(), bytes);
  std::vector<DocumentRecord> records;
  for (const Stored& one : raw) {
    if (one.check != check_of(one)) break;
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
  const char* from = reinterpret_cast<const char*>(raw.data());
  const std::int64_t bytes = static_cast<std::int64_t>(raw.size()) * kRecordBytes;
  for (std::int64_t done = 0; done < bytes;) {
    const ssize_t wrote =
        ::pwrite(file_.get(), from + done, static_cast<std::size_t>(bytes - done), at_ * kRecordBytes + done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      fail(ExitCode::io, "{}: cannot be written: {}", (folder_ / kJournalFile).string(), system_reason(errno));
    }
    done += wrote;
  }
  at_ += static_cast<std::int64_t>(records.size());
}

bool BuildJournal::first_pass_done(std::uint64_t digest) {
  if (::ftruncate(file_.get(), at_ * kRecordBytes) != 0) {
    fail(ExitCode::io, "{}: cannot be cut: {}", (folder_ / kJournalFile).string(), system_reason(errno));
  }
  const std::string now = fmt::format("{:016x}", digest);
  if (now == digest_) return true;
  write_state(now);
  return false;
}

void BuildJournal::remove() {
  file_.close();
  for (const char* name : {kStateFile, kJournalFile}) {
    std::error_code ignored;  // what stays does no harm
    fs::remove(folder_ / name, ignored);
  }
}

}  // namespace shoestring
