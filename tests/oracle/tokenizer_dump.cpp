// What our tokenizer makes of a file, for tokenizer_compare.py:  tokenizer_dump TOKENIZER encode|decode|time FILE...
//
// encode: of each file how many ids its bytes become, and these, as little-endian u32. decode: the bytes of such ids.
// time: seconds that encoding the file in pieces of 64 KiB took, the best of five, and the ids, as text.
#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>

#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

void write(const void* data, std::size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes) fail(ExitCode::io, "standard output: cannot write");
}

double seconds_to_encode(const Tokenizer& tokenizer, std::string_view text, std::size_t& ids) {
  constexpr std::size_t kPiece = 64 << 10;
  std::vector<std::uint32_t> all;
  const auto begin = std::chrono::steady_clock::now();
  ids = 0;
  for (std::size_t at = 0; at < text.size(); at += kPiece) {
    all.clear();
    tokenizer.encode(text.substr(at, kPiece), all);
    ids += all.size();
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void dump(const Tokenizer& tokenizer, std::string_view what, const std::string& file) {
  const std::string text = read_file(file, std::int64_t{1} << 30);
  if (what == "encode") {
    std::vector<std::uint32_t> ids;
    tokenizer.encode(text, ids);
    const auto count = static_cast<std::uint32_t>(ids.size());
    write(&count, sizeof count);
    write(ids.data(), ids.size() * sizeof ids[0]);
  } else if (what == "decode") {
    std::vector<std::int32_t> ids(text.size() / sizeof(std::int32_t));
    std::memcpy(ids.data(), text.data(), ids.size() * sizeof ids[0]);
    const std::string back = tokenizer.decode(ids);
    write(back.data(), back.size());
  } else {
    double best = std::numeric_limits<double>::infinity();
    std::size_t ids = 0;
    for (int i = 0; i < 5; ++i) best = std::min(best, seconds_to_encode(tokenizer, text, ids));
    fmt::print("{} {}\n", best, ids);
  }
}

}  // namespace
}  // namespace shoestring

int main(int count, char** words) {
  if (count < 4) return 64;
  try {
    const auto tokenizer = shoestring::load_tokenizer(words[1]);
    for (int i = 3; i < count; ++i) shoestring::dump(*tokenizer, words[2], words[i]);
    return 0;
  } catch (const std::exception& exception) {
    const shoestring::Error error = shoestring::as_error(exception);
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
