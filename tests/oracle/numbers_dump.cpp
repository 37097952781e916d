// Casts for tests/oracle/numbers_ml_dtypes.py: reads singles from standard input, writes their codes in one format.
//
// usage: numbers_dump e4m3|e5m2|e8m0|bf16|decode_e4m3|decode_e5m2|decode_e8m0|decode_bf16
// A decoding direction reads codes (one byte each, two for bf16) and writes singles.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "kernels/base/dtype.h"

namespace {

using namespace shoestring;

template <class From, class To, class Convert>
int stream(Convert convert) {
  std::vector<From> in(1 << 16);
  std::vector<To> out(1 << 16);
  while (const std::size_t count = std::fread(in.data(), sizeof(From), in.size(), stdin)) {
    for (std::size_t i = 0; i < count; ++i) out[i] = convert(in[i]);
    if (std::fwrite(out.data(), sizeof(To), count, stdout) != count) return 74;
  }
  return std::fflush(stdout) == 0 ? 0 : 74;
}

template <class Small, class Bits>
int run(bool decode) {
  if (!decode) return stream<float, Bits>([](float value) { return Small(value).bits; });
  return stream<Bits, float>([](Bits bits) {
    Small small;
    small.bits = bits;
    return static_cast<float>(small);
  });
}

}  // namespace

int main(int count, char** arguments) {
  std::string_view format = count == 2 ? arguments[1] : "";
  constexpr std::string_view kDecode = "decode_";
  const bool decode = format.starts_with(kDecode);
  if (decode) format.remove_prefix(kDecode.size());
  if (format == "e4m3") return run<E4M3, std::uint8_t>(decode);
  if (format == "e5m2") return run<E5M2, std::uint8_t>(decode);
  if (format == "e8m0") return run<E8M0, std::uint8_t>(decode);
  if (format == "bf16") return run<BFloat16, std::uint16_t>(decode);
  std::fputs("usage: numbers_dump [decode_]e4m3|e5m2|e8m0|bf16\n", stderr);
  return 64;
}
