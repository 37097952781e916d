// Shards for tests: folders that vanish, documents from a seed, files forged around the writer.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "data/shard_writer.h"
#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring::testing {

/// A fresh folder, removed with all it holds.
class ShardFolder {
 public:
  ShardFolder() {
    // In memory where the system has such a place: thousands of small damaged files are no work for a disk.
    const std::filesystem::path memory = "/dev/shm";
    const bool in_memory = ::access(memory.c_str(), W_OK) == 0;
    std::string pattern =
        ((in_memory ? memory : std::filesystem::temp_directory_path()) / "shoestring_data_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~ShardFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

using Documents = std::vector<std::vector<std::uint32_t>>;

inline constexpr std::uint32_t kEnd = 1;  ///< end-of-document id of every test shard

/// `count` documents of lognormal length (median `median`, spread as real text has it), ids in [2, vocabulary).
inline Documents make_documents(std::int64_t count, double median, std::uint32_t vocabulary, std::uint64_t seed) {
  const Random random(seed, Purpose::test);
  Documents documents(static_cast<std::size_t>(count));
  std::uint64_t index = 0;
  for (auto& document : documents) {
    const double length = median * std::exp(1.1 * random.normal(index++));
    document.resize(static_cast<std::size_t>(std::max(1.0, length)));
    for (std::uint32_t& id : document) id = 2 + static_cast<std::uint32_t>(random.below(index++, vocabulary - 2));
  }
  return documents;
}

inline ShardWriteResult write_shard(const std::string& path, const Documents& documents, std::uint32_t vocabulary) {
  ShardWriter writer(path, {vocabulary, kEnd, "test-tokenizer", "test"});
  for (const auto& document : documents) writer.append(document, 3 * document.size());
  return writer.finish();
}

inline std::vector<char> file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The Error that `body` throws; fails the test when it throws none.
template <class Body>
Error error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return {ExitCode::done, ""};
}

}  // namespace shoestring::testing
