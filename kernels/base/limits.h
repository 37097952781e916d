// What the system still lets this process take: memory and open files. Threads: thread.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace shoestring {

struct MemoryLeft {
  std::int64_t bytes = INT64_MAX;
  std::string from;  ///< the limit that leaves least, with its value; empty where there is none
};

/// Host memory that this process can still take where `sharing` processes, itself included, take equal shares of the
/// machine: the least of what the machine has, of its control groups (control_groups.h) and of its own `ulimit -v` and
/// `ulimit -d`. Never throws; what cannot be read is no limit.
MemoryLeft memory_left(int sharing, const std::filesystem::path& process = "/proc/self",
                       const std::filesystem::path& root = "/");

/// Names the machine to who counts the processes that share it: containers of one machine give the same name.
std::string machine_name();

/// Raises `ulimit -n` to `wanted` as far as the system allows; returns how many files may be open now.
std::int64_t raise_open_files(std::int64_t wanted);

/// For an error's text: where memory may have been limited, and by how much.
std::string memory_limits();

}  // namespace shoestring
