#include "core/training/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>

#include "kernels/base/append.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/host.h"

namespace shoestring {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) != 0 ? 0x82F63B78u : 0u);
    table[byte] = value;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xA282EAD8u; }

template <class T>
void append_raw(std::string& to, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  to.append(bytes, sizeof(T));
}

// The protobuf wire format: varints, and fields keyed (number << 3 | wire type).
void append_varint(std::string& to, std::uint64_t value) {
  while (value >= 0x80) {
    to.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  to.push_back(static_cast<char>(value));
}
void append_text(std::string& to, int field, std::string_view text) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 2);
  append_varint(to, text.size());
  to.append(text);
}
void append_double(std::string& to, int field, double value) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 1);
  append_raw(to, value);
}
void append_float(std::string& to, int field, float value) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 5);
  append_raw(to, value);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<std::uint8_t>(byte)) & 0xFFu] ^ (crc >> 8);
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& directory, double wall_seconds, std::int64_t first_step) {
  make_directories(directory);
  path_ = directory / fmt::format("events.out.tfevents.{:010}.{}.{}", static_cast<std::int64_t>(wall_seconds),
                                  host_name(), getpid());
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_io(path_, "create it");
  std::string payload;
  append_double(payload, 1, wall_seconds);
  append_text(payload, 3, "brain.Event:2");
  record(payload);
  constexpr std::string_view kStart = "\x08\x01";  // SessionLog{status: START}
  std::string session;
  append_double(session, 1, wall_seconds);
  append_varint(session, 2 << 3);
  append_varint(session, static_cast<std::uint64_t>(first_step));
  append_text(session, 7, kStart);
  record(session);
}

EventFile::~EventFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EventFile::scalars(double wall_seconds, std::int64_t step,
                        const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;
    append_text(value, 1, tag);
    append_float(value, 2, static_cast<float>(number));
    append_text(summary, 1, value);
  }
  std::string payload;
  append_double(payload, 1, wall_seconds);
  append_varint(payload, 2 << 3);
  append_varint(payload, static_cast<std::uint64_t>(step));
  append_text(payload, 5, summary);
  record(payload);
}

void EventFile::record(const std::string& payload) {
  std::string bytes;
  append_raw<std::uint64_t>(bytes, payload.size());
  append_raw(bytes, masked(crc32c(bytes)));
  bytes += payload;
  append_raw(bytes, masked(crc32c(payload)));
  append(descriptor_, path_, bytes);
}

}  // namespace shoestring
