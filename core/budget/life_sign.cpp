#include "core/budget/life_sign.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace shoestring {
namespace {

constexpr std::size_t kLength = 32;  // of the file, always

}  // namespace

LifeSign::LifeSign(const std::filesystem::path& run_directory, int attempt, const Clock& clock)
    : clock_(clock), attempt_(attempt) {
  const std::filesystem::path file = run_directory / kLifeSignFile;
  descriptor_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) return;
  write();
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!leave_.wait_for(lock, std::chrono::duration<double>(kLifeSignSeconds), [this] { return leaving_; })) {
      write();
    }
  });
}

LifeSign::~LifeSign() {
  if (descriptor_ < 0) return;
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  leave_.notify_all();
  thread_.join();
  ::close(descriptor_);
}

void LifeSign::write() const {
  std::string line = fmt::format("{} {:.6f}", attempt_, clock_.unix_seconds());
  line.resize(kLength - 1, ' ');
  line += '\n';
  [[maybe_unused]] const ssize_t wrote = ::pwrite(descriptor_, line.data(), line.size(), 0);
}

std::optional<LastSign> read_life_sign(const std::filesystem::path& run_directory) {
  const std::filesystem::path file = run_directory / kLifeSignFile;
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return std::nullopt;
  std::array<char, kLength + 1> text{};
  const ssize_t got = ::pread(descriptor, text.data(), kLength, 0);
  ::close(descriptor);
  LastSign sign;
  if (got != static_cast<ssize_t>(kLength) || text[kLength - 1] != '\n') return std::nullopt;
  if (std::sscanf(text.data(), "%9d %20lf", &sign.attempt, &sign.unix_seconds) != 2) return std::nullopt;
  if (sign.attempt < 1 || !std::isfinite(sign.unix_seconds)) return std::nullopt;
  return sign;
}

}  // namespace shoestring
