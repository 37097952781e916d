#include "data/shard_shape.h"

#include <bit>
#include <utility>

#include "data/hdf5_handle.h"
#include "data/shard_format.h"
#include "data/shard_header.h"
#include "kernels/base/check.h"

// HDF5 can express far more than a shard: bytes kept in other files, links, filters that load code, layouts without an
// address. Each function below names one thing it accepts; everything else is refused before any of it is followed.
// That the bytes can be given to the library at all is checked first, in shard_header.h.

namespace shoestring::shard_shape {

namespace format = shard_format;

namespace {

class Examiner {
 public:
  Examiner(const std::string& path, std::uint64_t file_bytes) : path_(path), file_bytes_(file_bytes) {}

  ShardInfo run();

 private:
  template <class... Values>
  [[noreturn]] void refuse(fmt::format_string<Values...> rule, Values&&... values) const {
    shard_header::refuse(path_, fmt::format(rule, std::forward<Values>(values)...));
  }
  template <class... Values>
  void require(bool holds, fmt::format_string<Values...> rule, Values&&... values) const {
    if (!holds) refuse(rule, std::forward<Values>(values)...);
  }

  void check_objects(hid_t file) const;
  std::uint64_t number(hid_t file, const char* name, std::size_t bytes) const;
  std::string text(hid_t file, const char* name) const;
  void read_attributes(hid_t file, ShardInfo& info) const;
  std::uint64_t locate(hid_t file, const char* name, hid_t type, std::uint64_t count, std::size_t bytes) const;
  void check_layout(ShardInfo& info, hid_t file) const;

  const std::string& path_;
  std::uint64_t file_bytes_;
};

void Examiner::check_objects(hid_t file) const {
  H5G_info_t group{};
  require(H5Gget_info(file, &group) >= 0, "its root group cannot be read ({})", hdf5_error_text());
  require(group.nlinks == 3 && !group.mounted, "it holds {} objects instead of three datasets", group.nlinks);
  for (const char* name : {format::kTokens, format::kDocEnds, format::kBlockChecksums}) {
    H5L_info_t link{};
    require(H5Lget_info(file, name, &link, H5P_DEFAULT) >= 0, "there is no `{}`", name);
    require(link.type == H5L_TYPE_HARD, "`{}` is a link to something else", name);
    H5O_info_t object{};
    require(H5Oget_info_by_name(file, name, &object, H5P_DEFAULT) >= 0, "`{}` cannot be read ({})", name,
            hdf5_error_text());
    require(object.type == H5O_TYPE_DATASET && object.rc == 1, "`{}` is not a dataset of its own", name);
    require(object.num_attrs == 0, "`{}` carries attributes", name);
  }
  H5O_info_t root{};
  require(H5Oget_info(file, &root) >= 0, "its root group cannot be read ({})", hdf5_error_text());
  require(root.num_attrs == format::kAttributes,
          "it has {} attributes instead of {}: written by another program, or not to the end", root.num_attrs,
          format::kAttributes);
}

std::uint64_t Examiner::number(hid_t file, const char* name, std::size_t bytes) const {
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  require(attribute.valid(), "attribute `{}` is missing or unreadable ({})", name, hdf5_error_text());
  const Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute.id()), H5Sclose);
  require(type.valid() && H5Tequal(type.id(), bytes == 4 ? H5T_STD_U32LE : H5T_STD_U64LE) > 0 && space.valid() &&
              H5Sget_simple_extent_type(space.id()) == H5S_SCALAR,
          "attribute `{}` is not one unsigned number of {} bytes", name, bytes);
  std::uint64_t value = 0;
  require(H5Aread(attribute.id(), H5T_NATIVE_UINT64, &value) >= 0, "attribute `{}` cannot be read ({})", name,
          hdf5_error_text());
  return value;
}

std::string Examiner::text(hid_t file, const char* name) const {
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  require(attribute.valid(), "attribute `{}` is missing or unreadable ({})", name, hdf5_error_text());
  const Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute.id()), H5Sclose);
  const bool fixed = type.valid() && H5Tget_class(type.id()) == H5T_STRING && H5Tis_variable_str(type.id()) == 0;
  const std::size_t size = fixed ? H5Tget_size(type.id()) : 0;
  require(size > 0 && size <= format::kMaxText && space.valid() && H5Sget_simple_extent_type(space.id()) == H5S_SCALAR,
          "attribute `{}` is not one fixed text of at most {} bytes", name, format::kMaxText);
  std::string value(size, '\0');
  require(H5Aread(attribute.id(), type.id(), value.data()) >= 0, "attribute `{}` cannot be read ({})", name,
          hdf5_error_text());
  return value.substr(0, value.find('\0'));
}

void Examiner::read_attributes(hid_t file, ShardInfo& info) const {
  require(number(file, format::kComplete, 4) == 1, "its writer did not finish it");
  info.format_version = static_cast<std::uint32_t>(number(file, format::kFormatVersion, 4));
  require(info.format_version == format::kVersion || info.format_version == format::kMaskedVersion,
          "its format is version {}, this program reads versions {} and {}", info.format_version, format::kVersion,
          format::kMaskedVersion);
  info.vocabulary_size = static_cast<std::uint32_t>(number(file, format::kVocabularySize, 4));
  info.end_of_document = static_cast<std::uint32_t>(number(file, format::kEndOfDocument, 4));
  info.tokens = number(file, format::kTokenCount, 8);
  info.documents = number(file, format::kDocumentCount, 8);
  info.text_bytes = number(file, format::kTextBytes, 8);
  info.block_bytes = static_cast<std::uint32_t>(number(file, format::kBlockBytesName, 4));
  info.content_hash = number(file, format::kContentHash, 8);
  info.tokenizer_hash = text(file, format::kTokenizerHash);
  info.source = text(file, format::kSource);
  require(info.vocabulary_size > 0 && info.vocabulary_size <= format::kMaxVocabulary, "its vocabulary has {} ids",
          info.vocabulary_size);
  require(info.end_of_document < info.vocabulary_size, "its end-of-document id {} is beyond its vocabulary of {}",
          info.end_of_document, info.vocabulary_size);
  require(
      info.block_bytes >= 4096 && info.block_bytes <= format::kMaxBlockBytes && std::has_single_bit(info.block_bytes),
      "its checksums stand for {} bytes each", info.block_bytes);
  require(info.documents > 0 && info.documents <= info.tokens, "it counts {} documents in {} tokens", info.documents,
          info.tokens);
  info.token_bytes = format::token_bytes(info.vocabulary_size, info.masked());
}

std::uint64_t Examiner::locate(hid_t file, const char* name, hid_t type, std::uint64_t count, std::size_t bytes) const {
  require(count <= file_bytes_ / bytes, "`{}` would hold {} items of {} bytes in a file of {}", name, count, bytes,
          file_bytes_);
  const Hdf5Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  require(dataset.valid(), "`{}` cannot be opened ({})", name, hdf5_error_text());
  const Hdf5Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  require(creation.valid() && H5Pget_layout(creation.id()) == H5D_CONTIGUOUS, "`{}` is not contiguous", name);
  require(H5Pget_external_count(creation.id()) == 0, "`{}` keeps its bytes in another file", name);
  require(H5Pget_nfilters(creation.id()) == 0, "`{}` is filtered", name);
  const Hdf5Handle stored(H5Dget_type(dataset.id()), H5Tclose);
  require(stored.valid() && H5Tequal(stored.id(), type) > 0,
          "`{}` does not hold little-endian unsigned {}-byte integers", name, bytes);
  const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose);
  require(space.valid() && H5Sis_simple(space.id()) > 0 && H5Sget_simple_extent_ndims(space.id()) == 1,
          "`{}` is not one row of items", name);
  hsize_t extent = 0;
  hsize_t limit = 0;
  require(H5Sget_simple_extent_dims(space.id(), &extent, &limit) == 1 && extent == count && limit == count,
          "`{}` has {} items where {} belong", name, extent, count);
  require(H5Dget_storage_size(dataset.id()) == count * bytes, "`{}` has {} bytes for {} items of {}", name,
          H5Dget_storage_size(dataset.id()), count, bytes);
  const haddr_t offset = H5Dget_offset(dataset.id());
  require(offset != HADDR_UNDEF && offset >= 48 && offset % format::kAlignment == 0 && offset <= file_bytes_ &&
              count * bytes <= file_bytes_ - offset,
          "`{}` lies at byte {} of a file of {} bytes, outside it or unaligned", name, offset, file_bytes_);
  return offset;
}

void Examiner::check_layout(ShardInfo& info, hid_t file) const {
  require(info.tokens <= file_bytes_ / info.token_bytes, "it counts {} tokens in {} bytes", info.tokens, file_bytes_);
  info.token_blocks = format::blocks(info.tokens * info.token_bytes, info.block_bytes);
  const std::uint64_t checksums = info.token_blocks + format::blocks(info.documents * 8, info.block_bytes);
  info.tokens_offset = locate(file, format::kTokens, info.token_bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, info.tokens,
                              info.token_bytes);
  info.doc_ends_offset = locate(file, format::kDocEnds, H5T_STD_U64LE, info.documents, 8);
  info.checksums_offset = locate(file, format::kBlockChecksums, H5T_STD_U64LE, checksums, 8);
  const auto apart = [&](std::uint64_t a, std::uint64_t a_bytes, std::uint64_t b, std::uint64_t b_bytes) {
    require(a + a_bytes <= b || b + b_bytes <= a, "two of its datasets share bytes");
  };
  apart(info.tokens_offset, info.tokens * info.token_bytes, info.doc_ends_offset, info.documents * 8);
  apart(info.tokens_offset, info.tokens * info.token_bytes, info.checksums_offset, checksums * 8);
  apart(info.doc_ends_offset, info.documents * 8, info.checksums_offset, checksums * 8);
}

ShardInfo Examiner::run() {
  const Hdf5Quiet quiet;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_file_locking(access.id(), false,
                      true);  // locks fail on some network and read-only mounts; shards never change
  H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG);
  const Hdf5Handle file(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose);
  require(file.valid(), "HDF5 cannot open it ({})", hdf5_error_text());
  ShardInfo info;
  info.path = path_;
  info.file_bytes = file_bytes_;
  check_objects(file.id());
  read_attributes(file.id(), info);
  check_layout(info, file.id());
  return info;
}

}  // namespace

ShardInfo examine(const ShardFile& file, const StoragePatience& patience) {
  shard_header::check(file, patience);
  return Examiner(file.path(), file.bytes()).run();
}

}  // namespace shoestring::shard_shape
