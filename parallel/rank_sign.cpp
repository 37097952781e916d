#include "parallel/rank_sign.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostBytes = 16 << 10;
constexpr std::size_t kSignBytes = 1024;  // at least: so that hardly any has the tail of a longer one, for a moment
constexpr int kMostRanks = 1 << 24;

std::optional<Json> parse(std::string_view text) {
  try {
    return parse_json(text, "sign", ExitCode::bad_data, {.bytes = kMostBytes, .depth = 2});
  } catch (const Error&) {  // half written, or not ours
    return std::nullopt;
  }
}

std::optional<std::string> content(const fs::path& path) {
  try {
    return read_file(path, kMostBytes);
  } catch (const Error&) {  // not there, or not yet
    return std::nullopt;
  }
}

bool is_there(const fs::path& path) {
  std::error_code unknown;
  return fs::exists(path, unknown);
}

// Opened and closed anew each time: what other machines see of a shared file system is what was closed.
bool put(const fs::path& path, std::string_view text, int flags) {
  const FileHandle file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0644));
  const auto bytes = static_cast<ssize_t>(text.size());
  return file.open() && ::pwrite(file.get(), text.data(), text.size(), 0) == bytes &&
         ::ftruncate(file.get(), bytes) == 0;
}

bool is_exit_code(std::int64_t code) {
  return code >= static_cast<int>(ExitCode::usage) && code <= static_cast<int>(ExitCode::replica_mismatch);
}

}  // namespace

std::string name(const RankSign& sign) {
  return fmt::format("rank {} (host {}, process {})", sign.rank, sign.host, sign.process);
}

std::string to_text(const RankSign& sign) {
  return Json::object({{"rank", sign.rank},
                       {"host", sign.host},
                       {"process", sign.process},
                       {"turn", sign.turn},
                       {"turn_seconds", sign.turn_seconds},
                       {"stalled_seconds", sign.stalled_seconds},
                       {"limit_seconds", sign.limits.progress_seconds},
                       {"sign_limit_seconds", sign.limits.sign_seconds},
                       {"alone", sign.limits.alone},
                       {"waits_for", sign.waits_for},
                       {"doing", sign.doing}})
      .dump();
}

std::optional<RankSign> parse_sign(std::string_view text) {
  const std::optional<Json> json = parse(text);
  if (!json) return std::nullopt;
  try {
    RankSign sign;
    sign.rank = static_cast<int>(json->at("rank").count(kMostRanks));
    sign.host = json->at("host").text();
    sign.process = json->at("process").count();
    sign.turn = json->at("turn").count();
    sign.turn_seconds = json->at("turn_seconds").number();
    sign.stalled_seconds = json->at("stalled_seconds").number();
    sign.limits = {json->at("limit_seconds").number(), json->at("sign_limit_seconds").number(),
                   json->at("alone").flag()};
    const std::int64_t waits_for = json->at("waits_for").whole();
    if (waits_for < -1 || waits_for > kMostRanks) return std::nullopt;
    sign.waits_for = static_cast<int>(waits_for);
    sign.doing = json->at("doing").text();
    return sign;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string to_text(const Verdict& verdict) {
  return Json::object({{"code", static_cast<int>(verdict.code)},
                       {"culprit", verdict.culprit},
                       {"author", verdict.author},
                       {"text", verdict.text}})
      .dump();
}

std::optional<Verdict> parse_verdict(std::string_view text) {
  const std::optional<Json> json = parse(text);
  if (!json) return std::nullopt;
  try {
    const std::int64_t code = json->at("code").count();
    if (!is_exit_code(code)) return std::nullopt;
    return Verdict{.code = static_cast<ExitCode>(code),
                   .culprit = static_cast<int>(json->at("culprit").count(kMostRanks)),
                   .author = static_cast<int>(json->at("author").count(kMostRanks)),
                   .text = json->at("text").text()};
  } catch (const Error&) {
    return std::nullopt;
  }
}

fs::path SignFolder::sign_of(int rank) const { return folder_ / fmt::format("{}.json", rank); }

void SignFolder::clear() const {
  std::error_code none;
  fs::remove_all(folder_, none);
  fs::create_directory(folder_, none);
}

void SignFolder::write(const RankSign& sign) const {
  std::string text = to_text(sign);
  text.resize(std::max(text.size(), kSignBytes), ' ');
  put(sign_of(sign.rank), text, 0);
}

std::optional<RankSign> SignFolder::read(int rank) const {
  const std::optional<std::string> text = content(sign_of(rank));
  return text ? parse_sign(*text) : std::nullopt;
}

// A link of that name can be made once only, and what it names is whole.
bool SignFolder::write(const Verdict& verdict) const {
  const fs::path whole = folder_ / fmt::format("verdict.{}", verdict.author);
  std::error_code refused;
  if (!put(whole, to_text(verdict), O_TRUNC)) return false;
  const bool first = ::link(whole.c_str(), (folder_ / "verdict.json").c_str()) == 0;
  fs::remove(whole, refused);
  return first;
}

std::optional<Verdict> SignFolder::verdict() const {
  if (!is_there(folder_ / "verdict.json")) return std::nullopt;
  const std::optional<std::string> text = content(folder_ / "verdict.json");
  return text ? parse_verdict(*text) : std::nullopt;
}

void SignFolder::ask_to_stop() const { put(folder_ / "stop", "", 0); }
bool SignFolder::asked_to_stop() const { return is_there(folder_ / "stop"); }

void SignFolder::remove(int rank) const {
  std::error_code refused;
  fs::remove(sign_of(rank), refused);
  fs::remove(folder_ / "stop", refused);
  fs::remove(folder_, refused);  // where another's is still there, it stays
}

}  // namespace shoestring
