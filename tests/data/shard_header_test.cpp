#include "data/shard_header.h"

#include <bit>
#include <cstring>
#include <span>

#include "data/shard.h"
#include "tests/data/shard_fixture.h"

// Checksums protect against accidents only: here every damage comes with its checksum made right, as fuzzing found the
// bytes that bring HDF5's library down.

namespace shoestring {
namespace {

using namespace shoestring::testing;

using Bytes = std::vector<char>;

/// Bob Jenkins' lookup3 (2006, public domain) over bytes: the checksum of HDF5's metadata.
std::uint32_t lookup3(std::span<const char> bytes) {
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

struct Piece {
  std::size_t begin = 0;
  std::size_t end = 0;  // of the checksum behind it
};

std::uint32_t stored(const Bytes& file, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, file.data() + at, sizeof(value));
  return value;
}

void repair(Bytes& file, const Piece& piece) {
  const std::uint32_t sum = lookup3(std::span(file).subspan(piece.begin, piece.end - piece.begin - 4));
  std::memcpy(file.data() + piece.end - 4, &sum, sizeof(sum));
}

/// A small shard and the pieces of metadata in it: where a signature begins and a checksum fits.
class ShardHeader : public ::testing::Test {
 protected:
  ShardHeader() {
    write_shard(folder_ / "sound.h5", make_documents(3, 20, 1000, 1), 1000);
    sound_ = file_bytes(folder_ / "sound.h5");
    pieces_.push_back({0, 48});
    constexpr std::size_t kLongest = 4096;
    for (std::size_t at = 48; at + 12 < sound_.size(); ++at) {
      const std::string_view mark(sound_.data() + at, 4);
      if (mark != "OHDR" && mark != "OCHK") continue;
      for (std::size_t bytes = 12; bytes < kLongest && at + bytes <= sound_.size(); ++bytes) {
        if (lookup3(std::span(sound_).subspan(at, bytes - 4)) != stored(sound_, at + bytes - 4)) continue;
        pieces_.push_back({at, at + bytes});
        break;
      }
    }
  }
  /// What opening says; empty when the file is taken.
  std::string refusal(const Bytes& bytes) {
    const std::string path = folder_ / "changed.h5";
    write_bytes(path, bytes);
    try {
      const Shard shard = Shard::open(path);
      std::vector<std::int32_t> out(shard.info().tokens);
      shard.read(0, out.size(), out.data());
      return {};
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
      return error.what();
    }
  }
  /// The refusal of the sound file with `byte` put `offset` behind the first place in the metadata that reads `text`.
  std::string refusal_with(const std::string& text, std::ptrdiff_t offset, char byte) {
    Bytes changed = sound_;
    for (const Piece& piece : pieces_) {
      const auto end = changed.begin() + static_cast<std::ptrdiff_t>(piece.end);
      const auto found =
          std::search(changed.begin() + static_cast<std::ptrdiff_t>(piece.begin), end, text.begin(), text.end());
      if (found == end) continue;
      *(found + offset) = byte;
      repair(changed, piece);
      return refusal(changed);
    }
    return "no such text";
  }

  ShardFolder folder_;
  Bytes sound_;
  std::vector<Piece> pieces_;
};

TEST_F(ShardHeader, TheChecksumIsTheLibrarys) {
  EXPECT_EQ(refusal(sound_), "");
  ASSERT_GE(pieces_.size(), 5u);  // superblock, root, three datasets
  for (const Piece& piece : pieces_) {
    Bytes again = sound_;
    repair(again, piece);
    EXPECT_EQ(again, sound_);
  }
}

TEST_F(ShardHeader, AnyByteOfTheMetadataWithItsChecksumMadeRight) {
  int refused = 0;
  int tried = 0;
  for (const Piece& piece : pieces_) {
    for (std::size_t at = piece.begin; at + 4 < piece.end; ++at) {
      for (const int change : {0xFF, 1 << (at % 8)}) {
        Bytes changed = sound_;
        changed[at] = static_cast<char>(changed[at] ^ change);
        repair(changed, piece);
        refused += refusal(changed).empty() ? 0 : 1;
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 1000);
  EXPECT_GT(refused, tried / 2);  // the rest lies in gaps and unread flags
}

TEST_F(ShardHeader, MoreIsNotFollowedOutsideTheHeader) {
  const std::string nowhere(16, '\xFF');  // the heap and the index of links: none
  EXPECT_NE(refusal_with(nowhere, 0, 0).find("outside its object header"), std::string::npos);
  EXPECT_NE(refusal_with(nowhere, 8, 0).find("outside its object header"), std::string::npos);
  EXPECT_NE(refusal_with(std::string(8, '\xFF'), 0, 0).find("extension"), std::string::npos);  // of the superblock
}

TEST_F(ShardHeader, AttributesEndInsideTheirHeader) {
  // Before an attribute's name: version, flags, sizes (two bytes each) of name, type and space, encoding.
  const std::string name = std::string("source") + '\0';
  for (const std::ptrdiff_t size : {-7, -6, -5, -4, -3, -2}) {
    const std::string text = refusal_with(name, size, '\x7F');
    EXPECT_NE(text.find("attribute"), std::string::npos) << size << ": " << text;
  }
  const std::string version = refusal_with(name, -9, 2);
  EXPECT_NE(version.find("attribute"), std::string::npos) << version;
  const std::string shared = refusal_with(name, -8, 1);
  EXPECT_NE(shared.find("attribute"), std::string::npos) << shared;
}

TEST_F(ShardHeader, CutAnywhere) {
  for (std::size_t length = 0; length < sound_.size(); length += length < 4096 ? 7 : 997) {
    EXPECT_NE(refusal(Bytes(sound_.begin(), sound_.begin() + static_cast<std::ptrdiff_t>(length))), "") << length;
  }
}

}  // namespace
}  // namespace shoestring
