// Shards forged with HDF5 itself, each with one thing that the format allows and a shard must not have.
#include "data/shard_shape.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "data/block_check.h"
#include "data/hdf5_handle.h"
#include "data/shard_format.h"
#include "data/shard_report.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;
namespace format = shard_format;

/// A shard as the writer would make it, before the one change a test makes.
struct Forgery {
  std::vector<std::uint16_t> tokens = [] {
    std::vector<std::uint16_t> ids(3000, 7);
    for (std::size_t at = 99; at < ids.size(); at += 100) ids[at] = kEnd;
    return ids;
  }();
  std::vector<std::uint64_t> ends = [] {
    std::vector<std::uint64_t> all;
    for (std::uint64_t end = 100; end <= 3000; end += 100) all.push_back(end);
    return all;
  }();
  ShardInfo info;
  H5F_libver_t version = H5F_LIBVER_V110;
  hsize_t user_block = 0;
  hsize_t alignment = 4096;
  std::map<std::string, hid_t> types;                                     ///< other types than a shard's
  std::function<void(hid_t creation, const std::string& name)> creation;  ///< changes a dataset's properties
  std::map<std::string, hsize_t> extents;                                 ///< other sizes
  std::string unwritten;                                                  ///< a dataset without bytes
  std::function<void(hid_t file)> after;                                  ///< changes the finished file
  std::vector<std::string> attributes_left_out;
  bool wrong_hash = false;

  Forgery() {
    info.format_version = format::kVersion;
    info.vocabulary_size = 1000;
    info.end_of_document = kEnd;
    info.tokenizer_hash = "t";
    info.source = "s";
    info.token_bytes = 2;
    info.block_bytes = format::kBlockBytes;
    info.tokens = tokens.size();
    info.documents = ends.size();
  }
  void write(const std::string& path);

 private:
  void dataset(hid_t file, const std::string& name, hid_t type, const void* data, std::size_t count);
  void attribute(hid_t file, const char* name, hid_t type, const void* value);
};

void Forgery::dataset(hid_t file, const std::string& name, hid_t type, const void* data, std::size_t count) {
  const hid_t stored = types.contains(name) ? types[name] : type;
  const hsize_t extent = extents.contains(name) ? extents[name] : count;
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_alloc_time(properties.id(), name == unwritten ? H5D_ALLOC_TIME_LATE : H5D_ALLOC_TIME_EARLY);
  if (creation) creation(properties.id(), name);
  const Hdf5Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const Hdf5Handle set(H5Dcreate2(file, name.c_str(), stored, space.id(), H5P_DEFAULT, properties.id(), H5P_DEFAULT),
                       H5Dclose);
  ASSERT_TRUE(set.valid()) << name;
  if (name != unwritten && extent == count) H5Dwrite(set.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
}

void Forgery::attribute(hid_t file, const char* name, hid_t type, const void* value) {
  for (const std::string& left_out : attributes_left_out) {
    if (left_out == name) return;
  }
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle put(H5Acreate2(file, name, type, space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  H5Awrite(put.id(), type, value);
}

void Forgery::write(const std::string& path) {
  const Hdf5Quiet quiet;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access.id(), version, H5F_LIBVER_V110);
  H5Pset_alignment(access.id(), 1, alignment);
  const Hdf5Handle made(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_attr_phase_change(made.id(), 64, 0);
  if (user_block > 0) H5Pset_userblock(made.id(), user_block);
  const Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, made.id(), access.id()), H5Fclose);
  ASSERT_TRUE(file.valid());
  std::vector<std::uint64_t> sums{checksum(tokens.data(), tokens.size() * 2), checksum(ends.data(), ends.size() * 8)};
  dataset(file.id(), format::kTokens, H5T_STD_U16LE, tokens.data(), tokens.size());
  dataset(file.id(), format::kDocEnds, H5T_STD_U64LE, ends.data(), ends.size());
  dataset(file.id(), format::kBlockChecksums, H5T_STD_U64LE, sums.data(), sums.size());
  info.content_hash = format::content_hash(info, sums) + (wrong_hash ? 1 : 0);
  const std::uint32_t one = 1;
  attribute(file.id(), format::kFormatVersion, H5T_STD_U32LE, &info.format_version);
  attribute(file.id(), format::kVocabularySize, H5T_STD_U32LE, &info.vocabulary_size);
  attribute(file.id(), format::kEndOfDocument, H5T_STD_U32LE, &info.end_of_document);
  attribute(file.id(), format::kTokenCount, H5T_STD_U64LE, &info.tokens);
  attribute(file.id(), format::kDocumentCount, H5T_STD_U64LE, &info.documents);
  attribute(file.id(), format::kTextBytes, H5T_STD_U64LE, &info.text_bytes);
  attribute(file.id(), format::kBlockBytesName, H5T_STD_U32LE, &info.block_bytes);
  attribute(file.id(), format::kContentHash, H5T_STD_U64LE, &info.content_hash);
  attribute(file.id(), format::kTokenizerHash, H5T_C_S1, info.tokenizer_hash.c_str());
  attribute(file.id(), format::kSource, H5T_C_S1, info.source.c_str());
  attribute(file.id(), format::kComplete, H5T_STD_U32LE, &one);
  if (after) after(file.id());
}

class ShardShape : public ::testing::Test {
 protected:
  /// The refusal of the forged file, which must mention `rule`.
  void expect_refused(Forgery& forgery, const std::string& rule) {
    const std::string path = folder_ / "forged.h5";
    forgery.write(path);
    const Error error = error_of([&] {
      const Shard shard = Shard::open(path);
      std::vector<std::int32_t> out(shard.info().tokens);
      shard.read(0, out.size(), out.data());
    });
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    EXPECT_NE(std::string(error.what()).find(rule), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
  ShardFolder folder_;
};

TEST_F(ShardShape, TheUnchangedForgeryIsAShard) {
  Forgery forgery;
  forgery.write(folder_ / "a.h5");
  const ShardVerdict verdict = verify_shard(folder_ / "a.h5");
  EXPECT_TRUE(verdict.sound()) << (verdict.faults.empty() ? "" : verdict.faults[0].text);
  EXPECT_EQ(verdict.documents_checked, 30u);
}

TEST_F(ShardShape, IdsBeyondTheVocabulary) {
  Forgery forgery;
  forgery.tokens[1234] = 1000;
  expect_refused(forgery, "holds id 1000, beyond the vocabulary of 1000");
}

TEST_F(ShardShape, ExternalStorage) {
  Forgery forgery;
  write_bytes(folder_ / "elsewhere", std::vector<char>(6000, 0));
  forgery.creation = [&](hid_t properties, const std::string& name) {
    if (name == format::kTokens) H5Pset_external(properties, (folder_ / "elsewhere").c_str(), 0, 6000);
  };
  expect_refused(forgery, "another file");
}

TEST_F(ShardShape, LinksAndStrangers) {
  for (const char* name : {format::kTokens, format::kDocEnds, format::kBlockChecksums}) {
    Forgery soft;
    soft.after = [&](hid_t file) {
      H5Lmove(file, name, file, "moved", H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_soft("/moved", file, name, H5P_DEFAULT, H5P_DEFAULT);
    };
    expect_refused(soft, "objects instead of three");
    Forgery external;
    external.after = [&](hid_t file) {
      H5Ldelete(file, name, H5P_DEFAULT);
      H5Lcreate_external("/etc/passwd", "/x", file, name, H5P_DEFAULT, H5P_DEFAULT);
    };
    expect_refused(external, "is a link");
    Forgery renamed;
    renamed.after = [&](hid_t file) { H5Lmove(file, name, file, "moved", H5P_DEFAULT, H5P_DEFAULT); };
    expect_refused(renamed, "there is no");
    Forgery group;
    group.after = [&](hid_t file) {
      H5Ldelete(file, name, H5P_DEFAULT);
      H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    };
    expect_refused(group, "not a dataset");
  }
  Forgery twins;
  twins.after = [](hid_t file) {
    H5Ldelete(file, format::kBlockChecksums, H5P_DEFAULT);
    H5Lcreate_hard(file, format::kDocEnds, file, format::kBlockChecksums, H5P_DEFAULT, H5P_DEFAULT);
  };
  expect_refused(twins, "of its own");
  Forgery stranger;
  stranger.after = [](hid_t file) { H5Gclose(H5Gcreate2(file, "more", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)); };
  expect_refused(stranger, "4 objects");
}

TEST_F(ShardShape, LayoutsWithoutAnAddress) {
  Forgery chunked;
  chunked.creation = [](hid_t properties, const std::string&) {
    const hsize_t chunk = 2;
    H5Pset_chunk(properties, 1, &chunk);
  };
  expect_refused(chunked, "not contiguous");
  Forgery filtered;
  filtered.creation = [](hid_t properties, const std::string& name) {
    const hsize_t chunk = 2;
    if (name != format::kDocEnds) return;
    H5Pset_chunk(properties, 1, &chunk);
    H5Pset_fletcher32(properties);
  };
  expect_refused(filtered, "`doc_ends` is not contiguous");
  Forgery compact;
  compact.creation = [](hid_t properties, const std::string& name) {
    if (name == format::kBlockChecksums) H5Pset_layout(properties, H5D_COMPACT);
  };
  expect_refused(compact, "not contiguous");
  Forgery unwritten;
  unwritten.unwritten = format::kTokens;
  expect_refused(unwritten, "`tokens`");
}

TEST_F(ShardShape, ExtentsAndTypes) {
  for (const hsize_t extent : {hsize_t{2999}, hsize_t{3001}, hsize_t{1} << 40}) {
    Forgery forgery;
    forgery.extents[format::kTokens] = extent;
    forgery.unwritten = extent > 100000 ? format::kTokens : "";
    expect_refused(forgery, "items where 3000 belong");
  }
  Forgery many;
  many.info.tokens = std::uint64_t{1} << 60;
  expect_refused(many, "tokens in");
  Forgery overflow;
  overflow.info.documents = std::uint64_t{1} << 61;
  overflow.info.tokens = 3000;
  expect_refused(overflow, "documents in");
  for (const hid_t type : {H5T_STD_U16BE, H5T_STD_I16LE, H5T_STD_U32LE, H5T_IEEE_F32LE}) {
    Forgery forgery;
    forgery.types[format::kTokens] = type;
    expect_refused(forgery, "does not hold little-endian unsigned");
  }
  Forgery wide;  // ids of a large vocabulary in two bytes
  wide.info.vocabulary_size = 100000;
  wide.info.token_bytes = 4;
  expect_refused(wide, "4-byte");
  Forgery unaligned;
  unaligned.alignment = 1;
  expect_refused(unaligned, "unaligned");
}

TEST_F(ShardShape, Attributes) {
  for (const char* name : {format::kComplete, format::kFormatVersion, format::kContentHash, format::kTokenizerHash}) {
    Forgery forgery;
    forgery.attributes_left_out = {name};
    expect_refused(forgery, "10 attributes instead of 11");
  }
  Forgery newer;
  newer.info.format_version = 3;
  expect_refused(newer, "version 3");
  Forgery narrow;  // a masked shard's ids take four bytes
  narrow.info.format_version = 2;
  expect_refused(narrow, "unsigned 4-byte integers");
  Forgery hash;
  hash.wrong_hash = true;
  expect_refused(hash, "content_hash");
  Forgery end;
  end.info.end_of_document = 1000;
  expect_refused(end, "end-of-document");
  Forgery vocabulary;
  vocabulary.info.vocabulary_size = 0;
  expect_refused(vocabulary, "vocabulary");
  Forgery blocks;
  blocks.info.block_bytes = 0;
  expect_refused(blocks, "checksums stand for 0 bytes");
  Forgery variable;
  variable.after = [](hid_t file) {
    H5Adelete(file, format::kSource);
    const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.id(), H5T_VARIABLE);
    const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Aclose(H5Acreate2(file, format::kSource, type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT));
  };
  expect_refused(variable, "fixed text");
}

TEST_F(ShardShape, DocumentEnds) {
  Forgery falls;
  falls.ends[5] = falls.ends[4];
  expect_refused(falls, "does not rise");
  Forgery early;
  early.ends.back() = 2999;
  expect_refused(early, "ends at token 2999 of 3000");
  Forgery beyond;
  beyond.ends.back() = 3001;
  expect_refused(beyond, "ends at token 3001 of 3000");
}

TEST_F(ShardShape, OtherVersionsAndUserBlocks) {
  Forgery old;
  old.version = H5F_LIBVER_EARLIEST;
  expect_refused(old, "superblock");
  Forgery block;
  block.user_block = 4096;
  expect_refused(block, "does not begin");
}

TEST_F(ShardShape, VerifyFindsStrayAndMissingEnds) {
  Forgery forgery;
  forgery.tokens[50] = kEnd;
  forgery.tokens[2999] = 7;
  forgery.write(folder_ / "a.h5");
  const ShardVerdict verdict = verify_shard(folder_ / "a.h5");
  ASSERT_EQ(verdict.fault_count, 2u);
  EXPECT_NE(verdict.faults[0].text.find("token 50 is the end-of-document id"), std::string::npos);
  EXPECT_NE(verdict.faults[1].text.find("token 2999 is not"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
