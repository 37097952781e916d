#include "data/file_map.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/file.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

const std::size_t kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

class FileMapTest : public ::testing::Test {
 protected:
  fs::path file_of(std::size_t pages, char letter) const {
    const fs::path path = place_ / std::string(1, letter);
    testing::write_text(path, std::string(pages * kPage, letter));
    return path;
  }
  static FileMap mapped(const fs::path& path) {
    const FileHandle file = open_for_reading(path);
    return FileMap(file, path, static_cast<std::uint64_t>(file_bytes(file, path)));
  }
  static std::int64_t count(const FileMap& map, char letter) {
    return std::count(map.data(), map.data() + map.bytes(), static_cast<unsigned char>(letter));
  }

  testing::TemporaryFolder place_;
};

TEST_F(FileMapTest, PagesThatAreGoneReadAsZerosAndAreTold) {
  const fs::path path = file_of(5, 'a');
  const FileMap map = mapped(path);
  const FileMap other = mapped(file_of(3, 'b'));
  EXPECT_EQ(count(map, 'a'), static_cast<std::int64_t>(5 * kPage));
  EXPECT_FALSE(map.lost());
  fs::resize_file(path, 2 * kPage);
  EXPECT_FALSE(map.lost()) << "nobody has looked";
  EXPECT_EQ(map.data()[3 * kPage + 7], 0);
  EXPECT_TRUE(map.lost());
  EXPECT_EQ(map.lost_from(), 3 * kPage);
  EXPECT_EQ(count(map, 'a'), static_cast<std::int64_t>(2 * kPage));
  EXPECT_EQ(count(map, '\0'), static_cast<std::int64_t>(3 * kPage));
  EXPECT_EQ(map.lost_from(), 3 * kPage) << "the first that was met";
  EXPECT_EQ(count(other, 'b'), static_cast<std::int64_t>(3 * kPage));
  EXPECT_FALSE(other.lost());
}

TEST_F(FileMapTest, ManyThreadsMeetIt) {
  const fs::path path = file_of(64, 'a');
  const FileMap map = mapped(path);
  fs::resize_file(path, 0);
  std::vector<std::thread> threads;
  std::atomic<int> told{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back(
        [&] { told += count(map, '\0') == static_cast<std::int64_t>(64 * kPage) && map.lost() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(told, 4);
}

TEST_F(FileMapTest, AMapThatMovesOrEndsLeavesTheNextOneSound) {
  FileMap kept;
  EXPECT_EQ(kept.data(), nullptr);
  {
    const fs::path path = file_of(2, 'a');
    FileMap map = mapped(path);
    kept = std::move(map);
    fs::resize_file(path, 0);
  }
  EXPECT_EQ(kept.data()[0], 0);
  EXPECT_TRUE(kept.lost());
  kept = mapped(file_of(2, 'b'));
  EXPECT_FALSE(kept.lost());
  EXPECT_EQ(count(kept, 'b'), static_cast<std::int64_t>(2 * kPage));
}

TEST_F(FileMapTest, ASignalFromElsewhereIsNotOurs) {
  const FileMap map = mapped(file_of(1, 'a'));
  EXPECT_DEATH(::raise(SIGBUS), "");
  const fs::path path = file_of(1, 'b');
  const FileHandle file = open_for_reading(path);
  void* const foreign = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(foreign, MAP_FAILED);
  fs::resize_file(path, 0);
  EXPECT_DEATH({ ::raise(*static_cast<const volatile char*>(foreign)); }, "");
  ::munmap(foreign, kPage);
}

std::sig_atomic_t volatile g_asked = 0;

TEST_F(FileMapTest, WhoeverHadTheSignalIsAsked) {
  struct sigaction before {};
  ::sigaction(SIGBUS, nullptr, &before);
  std::signal(SIGBUS, [](int) { g_asked = 1; });
  const FileMap map = mapped(file_of(1, 'a'));
  ::raise(SIGBUS);
  EXPECT_EQ(g_asked, 1);
  ::sigaction(SIGBUS, &before, nullptr);
}

}  // namespace
}  // namespace shoestring
