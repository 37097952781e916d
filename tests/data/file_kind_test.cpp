#include "data/file_kind.h"

#include <gtest/gtest.h>

#include <string>

namespace shoestring {
namespace {

using namespace std::string_view_literals;

TEST(FileKind, KnowsWhatIsNotText) {
  EXPECT_EQ(file_kind("\x1F\x8B\x08 no NUL byte"sv).name, "gzip");
  EXPECT_EQ(file_kind("BZh91AY&SY no NUL byte"sv).name, "bzip2");
  EXPECT_EQ(file_kind("\x28\xB5\x2F\xFD"sv).name, "zstd");
  EXPECT_EQ(file_kind("\xFD"
                      "7zXZ\0\0"sv)
                .name,
            "xz");
  EXPECT_EQ(file_kind("PAR1"sv).name, "Parquet");
  EXPECT_EQ(file_kind("\xFF\xFE\0\0a\0\0\0"sv).name, "UTF-32");
  EXPECT_EQ(file_kind("\xFF\xFE"
                      "a\0b\0"sv)
                .name,
            "UTF-16");
  EXPECT_EQ(file_kind("\xFE\xFF\0a\0b"sv).name, "UTF-16");
  EXPECT_EQ(file_kind("a\0b\0c\0"sv).name, "UTF-16");
  EXPECT_EQ(file_kind("\0a\0b\0c"sv).name, "UTF-16");
  EXPECT_EQ(file_kind("bin\0ary"sv).name, "binary");
  const FileKind pointer = file_kind("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 42\n");
  EXPECT_EQ(pointer.name, "Git LFS pointer") << "half a data set, cloned without it, would be text of three lines each";
  EXPECT_NE(pointer.remedy.find("git lfs pull"), std::string_view::npos);
  EXPECT_EQ(remedy_of(pointer.name), pointer.remedy);
  EXPECT_FALSE(file_kind("bin\0ary"sv).remedy.empty());
}

TEST(FileKind, TextIsText) {
  for (const std::string_view text :
       {""sv, "a"sv, "{\"text\": 1}"sv, "\xEF\xBB\xBFmark"sv, "\xE6\x97\xA5\xE6\x9C\xAC"sv, "caf\xE9 in Latin-1"sv,
        "version https://git-lfs.github.com/spec/v1 is"sv}) {
    EXPECT_TRUE(file_kind(text).is_text()) << text;
  }
  EXPECT_TRUE(file_kind(std::string(kFileKindBytes, 'a') + '\0').is_text()) << "a NUL byte further on";
}

}  // namespace
}  // namespace shoestring
