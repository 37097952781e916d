#include "data/unpack.h"

#include <bzlib.h>
#include <fmt/format.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

using namespace std::string_view_literals;

[[noreturn]] void no_memory(std::string_view library) {
  fail(ExitCode::io, "{} gets no memory to unpack with", library);
}

/// The libraries count in 32 bits.
template <class Chars>
unsigned int counted(Chars chars) {
  return static_cast<unsigned int>(std::min<std::size_t>(chars.size(), std::numeric_limits<int>::max()));
}

class GzipUnpacker final : public Unpacker {
 public:
  GzipUnpacker() {
    constexpr int kGzipOnly = 16;  // added to the window's bits
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) no_memory("zlib");
  }
  ~GzipUnpacker() override { inflateEnd(&stream_); }

  UnpackStep step(std::span<const char> from, std::span<char> to, bool) override {
    const unsigned int in = counted(from);
    const unsigned int out = counted(to);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(from.data()));
    stream_.avail_in = in;
    stream_.next_out = reinterpret_cast<Bytef*>(to.data());
    stream_.avail_out = out;
    const int result = inflate(&stream_, Z_NO_FLUSH);
    if (result == Z_MEM_ERROR) no_memory("zlib");
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      throw PackedDamage{stream_.msg != nullptr ? stream_.msg : "not gzip data"};
    }
    return {in - stream_.avail_in, out - stream_.avail_out, result == Z_STREAM_END};
  }
  void begin() override { inflateReset(&stream_); }

 private:
  z_stream stream_{};
};

class ZstdUnpacker final : public Unpacker {
 public:
  ZstdUnpacker() : stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    if (!stream_) no_memory("zstd");
    constexpr int kWindowBits = 28;
    static_assert(std::size_t{1} << kWindowBits == kUnpackMemoryBytes);
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kWindowBits);
  }

  UnpackStep step(std::span<const char> from, std::span<char> to, bool) override {
    ZSTD_inBuffer in{from.data(), from.size(), 0};
    ZSTD_outBuffer out{to.data(), to.size(), 0};
    const std::size_t result = ZSTD_decompressStream(stream_.get(), &out, &in);
    if (ZSTD_isError(result) != 0) {
      throw PackedDamage{ZSTD_getErrorName(result),
                         ZSTD_getErrorCode(result) == ZSTD_error_frameParameter_windowTooLarge};
    }
    return {in.pos, out.pos, result == 0};
  }
  void begin() override {}  // the next frame's header begins it

 private:
  std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream_;
};

/// Concatenated streams and the padding between them are the library's affair: it ends with the file.
class XzUnpacker final : public Unpacker {
 public:
  XzUnpacker() {
    if (lzma_stream_decoder(&stream_, kUnpackMemoryBytes, LZMA_CONCATENATED) != LZMA_OK) no_memory("liblzma");
  }
  ~XzUnpacker() override { lzma_end(&stream_); }

  UnpackStep step(std::span<const char> from, std::span<char> to, bool last) override {
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(from.data());
    stream_.avail_in = from.size();
    stream_.next_out = reinterpret_cast<std::uint8_t*>(to.data());
    stream_.avail_out = to.size();
    const lzma_ret result = lzma_code(&stream_, last ? LZMA_FINISH : LZMA_RUN);
    const UnpackStep step{from.size() - stream_.avail_in, to.size() - stream_.avail_out, result == LZMA_STREAM_END};
    switch (result) {
      case LZMA_OK:
      case LZMA_STREAM_END:
      case LZMA_BUF_ERROR: return step;
      case LZMA_MEM_ERROR: no_memory("liblzma");
      case LZMA_MEMLIMIT_ERROR: throw PackedDamage{"its dictionary is too large", true};
      case LZMA_FORMAT_ERROR: throw PackedDamage{"not xz data"};
      case LZMA_OPTIONS_ERROR: throw PackedDamage{"packed in a way that this library does not know"};
      default: throw PackedDamage{"corrupt data"};
    }
  }
  void begin() override {}

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
};

class Bzip2Unpacker final : public Unpacker {
 public:
  Bzip2Unpacker() { open(); }
  ~Bzip2Unpacker() override { BZ2_bzDecompressEnd(&stream_); }

  UnpackStep step(std::span<const char> from, std::span<char> to, bool) override {
    const unsigned int in = counted(from);
    const unsigned int out = counted(to);
    stream_.next_in = const_cast<char*>(from.data());
    stream_.avail_in = in;
    stream_.next_out = to.data();
    stream_.avail_out = out;
    const int result = BZ2_bzDecompress(&stream_);
    if (result == BZ_MEM_ERROR) no_memory("bzip2");
    if (result != BZ_OK && result != BZ_STREAM_END) {
      throw PackedDamage{result == BZ_DATA_ERROR_MAGIC ? "not bzip2 data" : "corrupt data"};
    }
    return {in - stream_.avail_in, out - stream_.avail_out, result == BZ_STREAM_END};
  }
  void begin() override {
    BZ2_bzDecompressEnd(&stream_);
    open();
  }

 private:
  void open() {
    stream_ = {};
    if (BZ2_bzDecompressInit(&stream_, 0, 0) != BZ_OK) no_memory("bzip2");
  }
  bz_stream stream_{};
};

template <class Kind>
std::unique_ptr<Unpacker> make() {
  return std::make_unique<Kind>();
}

bool is_gzip(std::string_view front) { return front.starts_with("\x1F\x8B\x08"sv); }
// A frame, or one to be skipped, as parallel packers write first.
bool is_zstd(std::string_view front) {
  if (front.starts_with("\x28\xB5\x2F\xFD"sv)) return true;
  return front.size() >= 4 && (front[0] & '\xF0') == '\x50' && front.substr(1, 3) == "\x2A\x4D\x18"sv;
}
bool is_xz(std::string_view front) {
  return front.starts_with(
      "\xFD"
      "7zXZ\0"sv);
}
bool is_bzip2(std::string_view front) {
  return front.size() >= 10 && front.starts_with("BZh") && front[3] >= '1' && front[3] <= '9' &&
         (front.substr(4, 6) == "1AY&SY"sv || front.substr(4, 6) == "\x17\x72\x45\x38\x50\x90"sv);
}

constexpr std::array<Packing, 4> kPackings = {{
    {"gzip", ".gz", "gzip -d", is_gzip, make<GzipUnpacker>},
    {"zstd", ".zst .zstd", "zstd -d --long=31", is_zstd, make<ZstdUnpacker>},
    {"xz", ".xz", "xz -d", is_xz, make<XzUnpacker>},
    {"bzip2", ".bz2", "bzip2 -d", is_bzip2, make<Bzip2Unpacker>},
}};

}  // namespace

std::span<const Packing> packings() { return kPackings; }

const Packing* packing_of(std::string_view front) {
  const auto found =
      std::find_if(kPackings.begin(), kPackings.end(), [&](const Packing& packing) { return packing.begins(front); });
  return found == kPackings.end() ? nullptr : &*found;
}

std::string_view without_packing(std::string_view file_name) {
  for (const Packing& packing : kPackings) {
    for (std::string_view rest = packing.endings; !rest.empty();) {
      const std::size_t end = std::min(rest.find(' '), rest.size());
      const std::string_view ending = rest.substr(0, end);
      if (file_name.size() > ending.size() && file_name.ends_with(ending)) {
        return file_name.substr(0, file_name.size() - ending.size());
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return file_name;
}

}  // namespace shoestring
