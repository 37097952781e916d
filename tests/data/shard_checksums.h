// Checksums of HDF5's metadata, made right again after a change: they protect against accidents, not against who
// forges.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace shoestring::testing {

/// Bob Jenkins' lookup3 (2006, public domain) over bytes: the checksum of HDF5's metadata.
inline std::uint32_t lookup3(std::span<const char> bytes) {
  std::uint32_t a = 0xdeadbeef + static_cast<std::uint32_t>(bytes.size());
  std::uint32_t b = a;
  std::uint32_t c = a;
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4 && at + i < bytes.size(); ++i) {
      value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
    }
    return value;
  };
  const auto mix = [](std::uint32_t& x, std::uint32_t y, std::uint32_t& z, int by) {
    x = (x - z) ^ std::rotl(z, by);
    z += y;
  };
  const auto end = [](std::uint32_t& x, std::uint32_t y, int by) { x = (x ^ y) - std::rotl(y, by); };
  std::size_t at = 0;
  for (; bytes.size() - at > 12; at += 12) {
    a += word(at);
    b += word(at + 4);
    c += word(at + 8);
    mix(a, b, c, 4);
    mix(b, c, a, 6);
    mix(c, a, b, 8);
    mix(a, b, c, 16);
    mix(b, c, a, 19);
    mix(c, a, b, 4);
  }
  if (at == bytes.size()) return c;
  a += word(at);
  b += word(at + 4);
  c += word(at + 8);
  end(c, b, 14);
  end(a, c, 11);
  end(b, a, 25);
  end(c, b, 16);
  end(a, c, 4);
  end(b, a, 14);
  end(c, b, 24);
  return c;
}

/// A piece of metadata: from its signature to behind its checksum.
struct MetadataPiece {
  std::size_t begin = 0;
  std::size_t end = 0;
};

inline void repair(std::vector<char>& file, const MetadataPiece& piece) {
  const std::uint32_t sum = lookup3(std::span(file).subspan(piece.begin, piece.end - piece.begin - 4));
  std::memcpy(file.data() + piece.end - 4, &sum, sizeof(sum));
}

/// Where the object header that begins at `at` says that it ends, its checksum included; 0 where the file is too short.
inline std::size_t end_of_header(const std::vector<char>& file, std::size_t at) {
  constexpr unsigned kTimes = 0x20, kPhase = 0x10, kSizeOfSize = 3;
  if (at + 6 > file.size()) return 0;
  const auto flags = static_cast<unsigned char>(file[at + 5]);
  const std::size_t size_at = at + 6 + ((flags & kTimes) != 0 ? 16 : 0) + ((flags & kPhase) != 0 ? 4 : 0);
  const std::size_t width = std::size_t{1} << (flags & kSizeOfSize);
  if (size_at + width > file.size()) return 0;
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, file.data() + size_at, width);
  const std::size_t begin = size_at + width;
  return bytes <= file.size() && begin + bytes + 4 <= file.size() ? begin + bytes + 4 : 0;
}

/// The superblock and every object header of a file.
inline std::vector<MetadataPiece> metadata_pieces(const std::vector<char>& file) {
  constexpr std::size_t kSuperblock = 48;
  std::vector<MetadataPiece> pieces;
  if (file.size() >= kSuperblock) pieces.push_back({0, kSuperblock});
  const std::string_view bytes(file.data(), file.size());
  for (std::size_t at = bytes.find("OHDR"); at != std::string_view::npos; at = bytes.find("OHDR", at + 1)) {
    if (const std::size_t end = end_of_header(file, at); end > 0) pieces.push_back({at, end});
  }
  return pieces;
}

}  // namespace shoestring::testing
