#include "data/shard_header.h"

#include <algorithm>

#include "data/shard.h"
#include "tests/data/shard_checksums.h"
#include "tests/data/shard_fixture.h"

// Checksums protect against accidents only: here every damage comes with its checksum made right, as fuzzing found the
// bytes that bring HDF5's library down.

namespace shoestring {
namespace {

using namespace shoestring::testing;

using Bytes = std::vector<char>;

/// A small shard and the pieces of metadata in it: where a signature begins and a checksum fits.
class ShardHeader : public ::testing::Test {
 protected:
  ShardHeader() {
    write_shard(folder_ / "sound.h5", make_documents(3, 20, 1000, 1), 1000);
    sound_ = file_bytes(folder_ / "sound.h5");
    pieces_ = metadata_pieces(sound_);
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
    for (const MetadataPiece& piece : pieces_) {
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
  std::vector<MetadataPiece> pieces_;
};

TEST_F(ShardHeader, TheChecksumIsTheLibrarys) {
  EXPECT_EQ(refusal(sound_), "");
  ASSERT_GE(pieces_.size(), 5u);  // superblock, root, three datasets
  for (const MetadataPiece& piece : pieces_) {
    Bytes again = sound_;
    repair(again, piece);
    EXPECT_EQ(again, sound_);
  }
}

TEST_F(ShardHeader, AnyByteOfTheMetadataWithItsChecksumMadeRight) {
  int refused = 0;
  int tried = 0;
  for (const MetadataPiece& piece : pieces_) {
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
