#include "data/input_file.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/base/check.h"
#include "tests/data/packed.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::write_text;

// Neither all alike nor without any pattern, so that packers leave something to unpack.
std::string sample_text(std::size_t bytes) {
  std::mt19937_64 random(7);
  std::string text;
  while (text.size() < bytes) text += "word" + std::to_string(random() % 5000) + (random() % 9 == 0 ? "\n" : " ");
  text.resize(bytes);
  return text;
}

std::string read_all(InputFile& file, std::size_t step) {
  std::string all;
  while (true) {
    const std::string_view next = file.ahead(step);
    if (next.empty()) return all;
    const std::size_t taken = std::min(step, next.size());
    all.append(next.substr(0, taken));
    file.consume(taken);
  }
}

std::string error_of(const std::filesystem::path& path, const UnpackLimits& limits = {}) {
  try {
    InputFile file(path, limits);
    read_all(file, 10000);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    return error.what();
  }
}

TEST(InputFile, GivesTheTextWhateverPacksItAndHoweverItIsRead) {
  const testing::TemporaryFolder folder;
  const std::string text = sample_text(1 << 20);
  write_text(folder / "plain", text);
  for (const std::size_t step : {std::size_t{1000}, std::size_t{300000}, std::size_t{4} << 20}) {
    InputFile plain(folder / "plain");
    EXPECT_EQ(plain.packing(), "");
    EXPECT_EQ(read_all(plain, step), text);
    EXPECT_EQ(plain.read_bytes(), static_cast<std::int64_t>(text.size()));
  }
  for (const Packing& packing : packings()) {
    const std::string bytes = testing::packed(packing.name, text);
    write_text(folder / "packed", bytes);
    for (const std::size_t step : {std::size_t{1000}, std::size_t{4} << 20}) {
      InputFile file(folder / "packed");
      EXPECT_EQ(file.packing(), packing.name);
      EXPECT_EQ(read_all(file, step), text) << packing.name;
      EXPECT_EQ(file.read_bytes(), static_cast<std::int64_t>(bytes.size()));
    }
  }
}

// What `cat a.gz b.gz` and parallel packers make.
TEST(InputFile, StreamsOneBehindTheOtherAreOneText) {
  const testing::TemporaryFolder folder;
  const std::string first = sample_text(400000);
  for (const Packing& packing : packings()) {
    const std::string end = testing::packed(packing.name, "the end");
    write_text(folder / "packed", testing::packed(packing.name, first) + testing::packed(packing.name, "") + end);
    InputFile file(folder / "packed");
    EXPECT_EQ(read_all(file, 70000), first + "the end") << packing.name;
  }
}

TEST(InputFile, EmptyFilesAreEmpty) {
  const testing::TemporaryFolder folder;
  write_text(folder / "plain", "");
  InputFile plain(folder / "plain");
  EXPECT_TRUE(plain.ahead().empty());
  for (const Packing& packing : packings()) {
    write_text(folder / "packed", testing::packed(packing.name, ""));
    InputFile file(folder / "packed");
    EXPECT_TRUE(file.ahead(100).empty()) << packing.name;
    EXPECT_TRUE(file.ahead(100).empty()) << packing.name;
  }
}

TEST(InputFile, CutFilesAreRefusedWhereverTheyAreCut) {
  const testing::TemporaryFolder folder;
  for (const Packing& packing : packings()) {
    const std::string whole = testing::packed(packing.name, sample_text(3000));
    for (std::size_t bytes = 12; bytes < whole.size(); bytes += 1 + whole.size() / 40) {
      write_text(folder / "cut", whole.substr(0, bytes));
      EXPECT_NE(error_of(folder / "cut"), "") << packing.name << " cut at " << bytes << " of " << whole.size();
    }
    write_text(folder / "behind", whole + "something else");
    EXPECT_NE(error_of(folder / "behind"), "") << packing.name << " with something behind it";
  }
}

// A flipped bit is found, or changes nothing of the text (header fields that nobody reads).
TEST(InputFile, DamageNeverGivesAnotherText) {
  const testing::TemporaryFolder folder;
  const std::string text = sample_text(2000);
  for (const Packing& packing : packings()) {
    if (packing.name == "zstd") continue;  // its one-call packer writes no checksum
    const std::string whole = testing::packed(packing.name, text);
    int found = 0;
    for (std::size_t at = 10; at < whole.size(); at += 7) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
      write_text(folder / "bad", bytes);
      try {
        InputFile file(folder / "bad");
        EXPECT_EQ(read_all(file, 5000), text) << packing.name << " at " << at;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_data);
        ++found;
      }
    }
    EXPECT_GT(found, 50) << packing.name;
  }
}

// A frame of zstd carries no checksum unless its writer asked for one: what its decoder does not see are bytes inside a
// block. A frame that does not begin as one, one that is cut, and a block that is none are seen.
TEST(InputFile, AFrameThatIsNoneInTheMiddleIsFound) {
  const testing::TemporaryFolder folder;
  const std::string front = testing::packed("zstd", sample_text(2000));
  const std::string middle = testing::packed("zstd", sample_text(500));
  const std::string back = testing::packed("zstd", sample_text(2000));
  std::string no_frame = middle, no_block = middle;
  no_frame[1] = static_cast<char>(no_frame[1] ^ 0x10);
  no_block[7] = static_cast<char>(no_block[7] | 0x06);  // the kind of the first block, behind 7 bytes of header
  for (const std::string& bad :
       {no_frame, middle.substr(0, middle.size() / 2), std::string("between two frames"), no_block}) {
    write_text(folder / "a.zst", front + bad + back);
    const std::string error = error_of(folder / "a.zst");
    EXPECT_NE(error.find("a.zst"), std::string::npos) << error;
    EXPECT_NE(error.find("near byte"), std::string::npos) << error;
  }
}

// A small file that would fill the disk, or run for ever.
TEST(InputFile, BombsAreRefusedWhileTheyUnpack) {
  const testing::TemporaryFolder folder;
  const std::string zeros(4 << 20, '\0');
  for (const Packing& packing : packings()) {
    write_text(folder / "bomb", testing::packed(packing.name, zeros));
    const UnpackLimits tight{.ratio = 100, .free_bytes = 1 << 20};
    EXPECT_NE(error_of(folder / "bomb", tight).find("more than 100 times"), std::string::npos) << packing.name;
    EXPECT_EQ(error_of(folder / "bomb"), "") << packing.name;
  }
}

// As the dumps of some forums are packed: sound, so that to fetch them anew would change nothing.
TEST(InputFile, WindowsBeyondTheMemoryThatIsGivenAreNoDamage) {
  using namespace std::string_view_literals;
  constexpr std::string_view kZstd = "\x28\xB5\x2F\xFD\x00\xA8\x29\x00\x00hello"sv;  // a window of 2 GiB
  constexpr std::string_view kXz =                                                   // a dictionary of 1.5 GiB
      "\xFD\x37\x7A\x58\x5A\x00\x00\x04\xE6\xD6\xB4\x46\x02\x00\x21\x01\x25\x00\x00\x00\x3B\x78\x7B\x41"
      "\x01\x00\x04\x68\x65\x6C\x6C\x6F\x00\x00\x00\x00\xB1\x37\xB9\xDB\xE5\xDA\x1E\x9B\x00\x01\x1D\x05"
      "\xB8\x2D\x80\xAF\x1F\xB6\xF3\x7D\x01\x00\x00\x00\x00\x04\x59\x5A"sv;
  const testing::TemporaryFolder folder;
  for (const auto& [bytes, by_hand] : {std::pair(kZstd, "zstd -d --long=31"), std::pair(kXz, "xz -d")}) {
    write_text(folder / "packed", std::string(bytes));
    const std::string said = error_of(folder / "packed");
    EXPECT_NE(said.find("takes more than the 256 MiB"), std::string::npos) << said;
    EXPECT_NE(said.find(by_hand), std::string::npos) << said;
    EXPECT_EQ(said.find("fetch the file anew"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace shoestring
