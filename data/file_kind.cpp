#include "data/file_kind.h"

#include <algorithm>
#include <array>

#include "kernels/base/lfs_pointer.h"

namespace shoestring {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::string_view bytes;
  FileKind kind;
};

constexpr std::string_view kConvert = "convert to UTF-8, for example with iconv";
constexpr std::string_view kUnpack = "unpack first";
constexpr std::string_view kTable =
    "reading it takes Apache Arrow: pip install pyarrow and build this program again; or export the text as JSONL";
constexpr std::string_view kExport = "export the text as JSONL";

// The longer one first where one begins with another.
constexpr std::array<Signature, 17> kSignatures = {{
    {"\x1F\x8B"sv, {"gzip", kUnpack}},
    {"\x28\xB5\x2F\xFD"sv, {"zstd", kUnpack}},
    {"\xFD"
     "7zXZ\0"sv,
     {"xz", kUnpack}},
    {"BZh91AY&SY"sv, {"bzip2", kUnpack}},
    {"\x04\x22\x4D\x18"sv, {"lz4", kUnpack}},
    {"7z\xBC\xAF\x27\x1C"sv, {"7z", kUnpack}},
    {"PK\x03\x04"sv, {"zip", kUnpack}},
    {"PAR1"sv, {"Parquet", kTable}},
    {"ARROW1"sv, {"Arrow", kTable}},
    {"\xFF\xFF\xFF\xFF"sv, {"Arrow stream", kTable}},
    {"%PDF-"sv, {"PDF", kExport}},
    {"\x89HDF\r\n\x1A\n"sv, {"HDF5", "shards are trained on as they are"}},
    {"\xFF\xFE\0\0"sv, {"UTF-32", kConvert}},
    {"\0\0\xFE\xFF"sv, {"UTF-32", kConvert}},
    {"\xFF\xFE"sv, {"UTF-16", kConvert}},
    {"\xFE\xFF"sv, {"UTF-16", kConvert}},
    {kLfsPointer, {"Git LFS pointer", kLfsRemedy}},
}};

constexpr FileKind kBinary = {"binary", "text holds no NUL bytes"};

// Latin text in UTF-16 without a mark: every second byte is NUL, the others are not.
bool is_unmarked_utf16(std::string_view front) {
  std::array<std::size_t, 2> nuls{};
  for (std::size_t at = 0; at < front.size(); ++at) nuls[at % 2] += front[at] == '\0' ? 1 : 0;
  const std::size_t most = *std::max_element(nuls.begin(), nuls.end());
  const std::size_t least = *std::min_element(nuls.begin(), nuls.end());
  return front.size() >= 4 && least == 0 && most > front.size() / 4;
}

}  // namespace

FileKind file_kind(std::string_view front) {
  front = front.substr(0, kFileKindBytes);
  for (const Signature& signature : kSignatures) {
    if (front.starts_with(signature.bytes)) return signature.kind;
  }
  if (front.find('\0') == std::string_view::npos) return {};
  if (is_unmarked_utf16(front)) return {"UTF-16", kConvert};
  return kBinary;
}

std::string_view remedy_of(std::string_view name) {
  const auto found = std::find_if(kSignatures.begin(), kSignatures.end(),
                                  [&](const Signature& signature) { return signature.kind.name == name; });
  return found == kSignatures.end() ? kBinary.remedy : found->kind.remedy;
}

}  // namespace shoestring
