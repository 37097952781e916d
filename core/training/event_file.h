// TensorBoard event files: scalars, written without a library.
//
// A record is u64 length, masked CRC32C of the length, payload, masked CRC32C of the payload; the payload is a
// protobuf Event{1: wall_time double, 2: step int64, 3: file_version string, 5: Summary{1: Value{1: tag string,
// 2: simple_value float}}, 7: SessionLog{1: status}}. A cut last record is legal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shoestring {

/// CRC32C (Castagnoli) of `bytes`.
std::uint32_t crc32c(std::string_view bytes);

class EventFile {
 public:
  /// Opens `directory`/events.out.tfevents.SECONDS.HOST.PID for appending and writes the version record, and that a
  /// session starts at `first_step`: readers drop what earlier files have from there on, steps that were undone.
  EventFile(const std::filesystem::path& directory, double wall_seconds, std::int64_t first_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void scalars(double wall_seconds, std::int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  void record(const std::string& payload);
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace shoestring
