#include "data/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "data/block_check.h"
#include "data/hdf5_handle.h"
#include "data/shard_format.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/interrupted.h"

namespace shoestring {

namespace format = shard_format;

namespace {

/// A file that is written front to back or at places, and whose faults are Error(io) with its name and the reason.
class RawFile {
 public:
  RawFile(std::string path, int flags) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0644);
    if (fd_ < 0) stop("cannot open");
  }
  ~RawFile() { close(); }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  void write(std::uint64_t offset, const void* data, std::size_t bytes) {
    const auto* from = static_cast<const unsigned char*>(data);
    while (bytes > 0) {
      const ssize_t put = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) stop("cannot write");
      from += put;
      offset += static_cast<std::uint64_t>(put);
      bytes -= static_cast<std::size_t>(put);
    }
  }
  void read(std::uint64_t offset, void* data, std::size_t bytes) {
    auto* to = static_cast<unsigned char*>(data);
    while (bytes > 0) {
      const ssize_t got = ::pread(fd_, to, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got == 0) errno = EIO;
      if (got <= 0) stop("cannot read back");
      to += got;
      offset += static_cast<std::uint64_t>(got);
      bytes -= static_cast<std::size_t>(got);
    }
  }
  /// Takes the room on the disk now, where the file system can, so that a full disk shows before HDF5 meets it.
  void reserve(std::uint64_t bytes) {
    const auto take = [&] { return ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes)); };
    if (not_interrupted(take) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
      stop("no room to write");
    }
  }
  void sync() {
    if (sync_descriptor(fd_) != 0) stop("cannot sync");
  }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void stop(const char* what) {
    const int reason = errno;
    close();
    fail(ExitCode::io, "{} {}: {}", what, path_, system_reason(reason));
  }

  std::string path_;
  int fd_ = -1;
};

/// Bytes that arrive piece by piece, kept in a file; the memory is one buffer. Knows each block's checksum.
class Spool {
 public:
  explicit Spool(std::string path) : file_(std::move(path), O_RDWR | O_CREAT | O_TRUNC) {
    buffer_.reserve(kBufferBytes);
  }
  ~Spool() { ::unlink(file_.path().c_str()); }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  void add(const void* data, std::size_t bytes) {
    const auto* from = static_cast<const unsigned char*>(data);
    while (bytes > 0) {
      const std::size_t part = std::min(bytes, kBufferBytes - buffer_.size());
      buffer_.insert(buffer_.end(), from, from + part);
      from += part;
      bytes -= part;
      if (buffer_.size() == kBufferBytes) flush();
    }
  }
  void flush() {
    for (std::size_t at = 0; at < buffer_.size(); at += format::kBlockBytes) {
      checksums_.push_back(
          checksum(buffer_.data() + at, std::min<std::size_t>(format::kBlockBytes, buffer_.size() - at)));
    }
    file_.write(written_, buffer_.data(), buffer_.size());
    written_ += buffer_.size();
    buffer_.clear();
  }
  /// Copies everything to `target` at `offset`, block by block; what comes back must be what was added.
  void copy_to(RawFile& target, std::uint64_t offset) {
    for (std::uint64_t block = 0; block < checksums_.size(); ++block) {
      const std::uint64_t at = block * format::kBlockBytes;
      buffer_.resize(std::min<std::uint64_t>(format::kBlockBytes, written_ - at));
      file_.read(at, buffer_.data(), buffer_.size());
      if (checksum(buffer_.data(), buffer_.size()) != checksums_[block]) {
        fail(ExitCode::io, "{}: byte {} does not read back as it was written; check the disk", file_.path(), at);
      }
      target.write(offset + at, buffer_.data(), buffer_.size());
    }
  }
  std::uint64_t bytes() const { return written_; }
  const std::vector<std::uint64_t>& checksums() const { return checksums_; }

 private:
  static constexpr std::size_t kBufferBytes = 16 * format::kBlockBytes;
  RawFile file_;
  std::vector<unsigned char> buffer_;
  std::uint64_t written_ = 0;
  std::vector<std::uint64_t> checksums_;
};

/// The HDF5 side: datasets with their room taken but not filled, attributes, the end mark.
class Layout {
 public:
  explicit Layout(std::string path) : path_(std::move(path)), file_(create()) {}

  /// Takes room for a dataset; returns its byte offset in the file.
  std::uint64_t take(const char* name, hid_t type, std::uint64_t count) {
    const Hdf5Handle creation(require(H5Pcreate(H5P_DATASET_CREATE)), H5Pclose);
    require(H5Pset_layout(creation.id(), H5D_CONTIGUOUS));
    require(H5Pset_alloc_time(creation.id(), H5D_ALLOC_TIME_EARLY));
    require(H5Pset_fill_time(creation.id(), H5D_FILL_TIME_NEVER));
    require(H5Pset_obj_track_times(creation.id(), false));  // the same content is the same file
    const hsize_t extent = count;
    const Hdf5Handle space(require(H5Screate_simple(1, &extent, nullptr)), H5Sclose);
    const Hdf5Handle dataset(
        require(H5Dcreate2(file_.id(), name, type, space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT)), H5Dclose);
    const haddr_t offset = H5Dget_offset(dataset.id());
    check(offset != HADDR_UNDEF, "{}: HDF5 gave `{}` no place", path_, name);
    return offset;
  }
  void attribute(const char* name, std::uint32_t value) { put(name, H5T_STD_U32LE, H5T_NATIVE_UINT32, &value); }
  void attribute(const char* name, std::uint64_t value) { put(name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value); }
  void attribute(const char* name, const std::string& value) {
    const Hdf5Handle type(require(H5Tcopy(H5T_C_S1)), H5Tclose);
    require(H5Tset_size(type.id(), std::max<std::size_t>(1, value.size())));
    require(H5Tset_strpad(type.id(), H5T_STR_NULLPAD));
    require(H5Tset_cset(type.id(), H5T_CSET_UTF8));
    put(name, type.id(), type.id(), value.c_str());
  }
  void flush() { require(H5Fflush(file_.id(), H5F_SCOPE_LOCAL)); }
  void close() { require(file_.reset() ? 0 : -1); }

 private:
  template <class Result>
  Result require(Result result) {
    if (result < 0) fail(ExitCode::io, "cannot write {}: {}", path_, hdf5_error_text());
    return result;
  }
  Hdf5Handle create() {
    const Hdf5Handle access(require(H5Pcreate(H5P_FILE_ACCESS)), H5Pclose);
    require(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110));
    require(H5Pset_file_locking(access.id(), false, true));
    require(H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG));
    require(H5Pset_alignment(access.id(), 1, format::kAlignment));
    require(H5Pset_small_data_block_size(access.id(), 0));
    const Hdf5Handle creation(require(H5Pcreate(H5P_FILE_CREATE)), H5Pclose);
    require(H5Pset_obj_track_times(creation.id(), false));
    require(H5Pset_attr_phase_change(creation.id(), 64, 0));  // all attributes in the root's own header
    return {require(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, creation.id(), access.id())), H5Fclose};
  }
  void put(const char* name, hid_t stored, hid_t memory, const void* value) {
    const Hdf5Handle space(require(H5Screate(H5S_SCALAR)), H5Sclose);
    const Hdf5Handle attribute(require(H5Acreate2(file_.id(), name, stored, space.id(), H5P_DEFAULT, H5P_DEFAULT)),
                               H5Aclose);
    require(H5Awrite(attribute.id(), memory, value));
  }

  std::string path_;
  Hdf5Handle file_;
};

/// Removes a file unless told that it has moved on.
struct Temporary {
  std::string path;
  ~Temporary() {
    if (!path.empty()) ::unlink(path.c_str());
  }
};

}  // namespace

struct ShardWriter::State {
  State(std::string shard_path, const ShardWriterOptions& writer_options)
      : path(std::move(shard_path)),
        options(writer_options),
        tokens(path + ".partial.tokens"),
        ends(path + ".partial.ends") {}

  ShardInfo describe(const std::vector<std::uint64_t>& checksums) const;

  std::string path;
  ShardWriterOptions options;
  Spool tokens;
  Spool ends;
  std::vector<std::uint16_t> narrow;
  std::vector<std::uint32_t> marked;
  std::uint64_t token_count = 0;
  std::uint64_t document_count = 0;
  std::uint64_t text_bytes = 0;
};

ShardWriter::ShardWriter(std::string path, const ShardWriterOptions& options) {
  const auto require = [&](bool holds, const std::string& rule) {
    if (!holds) fail(ExitCode::usage, "cannot write shard {}: {}", path, rule);
  };
  require(options.vocabulary_size > 0 && options.vocabulary_size <= format::kMaxVocabulary,
          fmt::format("a vocabulary must have 1 to {} tokens", format::kMaxVocabulary));
  require(options.end_of_document < options.vocabulary_size, "the end-of-document id is beyond the vocabulary");
  require(!options.tokenizer_hash.empty() && options.tokenizer_hash.size() <= format::kMaxText,
          "the tokenizer hash must have 1 to 256 bytes");
  require(options.source.size() <= format::kMaxText, "the source name must have 256 bytes at most");
  require(options.tokenizer_hash.find('\0') == std::string::npos && options.source.find('\0') == std::string::npos,
          "names must not hold zero bytes");
  state_ = std::make_unique<State>(std::move(path), options);
}

ShardWriter::~ShardWriter() = default;

std::uint64_t ShardWriter::tokens() const { return state_->token_count; }
std::uint64_t ShardWriter::documents() const { return state_->document_count; }

void ShardWriter::append(std::span<const std::uint32_t> document, std::uint64_t text_bytes) {
  State& state = *state_;
  check(!document.empty(), "an empty document for shard {}", state.path);
  check(!state.options.masked, "shard {} is masked: what of the document is learned?", state.path);
  for (const std::uint32_t id : document) {
    if (id >= state.options.vocabulary_size || id == state.options.end_of_document) {
      fail(ExitCode::bad_data, "document {} for shard {} holds id {}: {}; take the tokenizer that made the ids",
           state.document_count, state.path, id,
           id == state.options.end_of_document
               ? "the end-of-document id is the writer's to add"
               : fmt::format("beyond the vocabulary of {}", state.options.vocabulary_size));
    }
  }
  if (format::token_bytes(state.options.vocabulary_size, false) == 2) {
    state.narrow.assign(document.size() + 1, static_cast<std::uint16_t>(state.options.end_of_document));
    std::transform(document.begin(), document.end(), state.narrow.begin(),
                   [](std::uint32_t id) { return static_cast<std::uint16_t>(id); });
    state.tokens.add(state.narrow.data(), state.narrow.size() * 2);
  } else {
    state.tokens.add(document.data(), document.size_bytes());
    state.tokens.add(&state.options.end_of_document, 4);
  }
  state.token_count += document.size() + 1;
  state.document_count += 1;
  state.text_bytes += text_bytes;
  state.ends.add(&state.token_count, 8);
}

void ShardWriter::append_masked(std::span<const std::uint32_t> document, std::span<const std::uint8_t> learned) {
  State& state = *state_;
  check(state.options.masked && !document.empty() && document.size() == learned.size(),
        "{} tokens, {} flags for shard {}", document.size(), learned.size(), state.path);
  state.marked.clear();
  for (std::size_t i = 0; i < document.size(); ++i) {
    if (document[i] >= state.options.vocabulary_size) {
      fail(ExitCode::bad_data, "document {} for shard {} holds id {}: beyond the vocabulary of {}",
           state.document_count, state.path, document[i], state.options.vocabulary_size);
    }
    state.marked.push_back(learned[i] != 0 ? document[i] : document[i] | format::kOnlyRead);
  }
  if (document.back() != state.options.end_of_document) {
    state.marked.push_back(state.options.end_of_document | format::kOnlyRead);
  }
  state.tokens.add(state.marked.data(), state.marked.size() * 4);
  state.token_count += state.marked.size();
  state.document_count += 1;
  state.ends.add(&state.token_count, 8);
}

ShardInfo ShardWriter::State::describe(const std::vector<std::uint64_t>& checksums) const {
  ShardInfo info;
  info.format_version = options.masked ? format::kMaskedVersion : format::kVersion;
  info.vocabulary_size = options.vocabulary_size;
  info.end_of_document = options.end_of_document;
  info.tokenizer_hash = options.tokenizer_hash;
  info.source = options.source;
  info.tokens = token_count;
  info.documents = document_count;
  info.text_bytes = text_bytes;
  info.token_bytes = format::token_bytes(options.vocabulary_size, options.masked);
  info.block_bytes = format::kBlockBytes;
  info.content_hash = format::content_hash(info, checksums);
  return info;
}

ShardWriteResult ShardWriter::finish() {
  State& state = *state_;
  check(state.document_count > 0, "shard {} has no document", state.path);
  state.tokens.flush();
  state.ends.flush();
  std::vector<std::uint64_t> checksums = state.tokens.checksums();
  checksums.insert(checksums.end(), state.ends.checksums().begin(), state.ends.checksums().end());
  const ShardInfo info = state.describe(checksums);

  Temporary temporary{state.path + ".partial"};
  constexpr std::uint64_t kMetadataBytes = 64 * 1024;
  RawFile(temporary.path, O_RDWR | O_CREAT | O_TRUNC)
      .reserve(state.tokens.bytes() + state.ends.bytes() + checksums.size() * 8 + kMetadataBytes);

  const Hdf5Quiet quiet;
  Layout layout(temporary.path);
  const std::uint64_t tokens_at =
      layout.take(format::kTokens, info.token_bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, info.tokens);
  const std::uint64_t ends_at = layout.take(format::kDocEnds, H5T_STD_U64LE, info.documents);
  const std::uint64_t checksums_at = layout.take(format::kBlockChecksums, H5T_STD_U64LE, checksums.size());
  layout.attribute(format::kFormatVersion, info.format_version);
  layout.attribute(format::kVocabularySize, info.vocabulary_size);
  layout.attribute(format::kEndOfDocument, info.end_of_document);
  layout.attribute(format::kTokenizerHash, info.tokenizer_hash);
  layout.attribute(format::kSource, info.source);
  layout.attribute(format::kTokenCount, info.tokens);
  layout.attribute(format::kDocumentCount, info.documents);
  layout.attribute(format::kTextBytes, info.text_bytes);
  layout.attribute(format::kBlockBytesName, info.block_bytes);
  layout.attribute(format::kContentHash, info.content_hash);
  layout.flush();

  RawFile file(temporary.path, O_RDWR);
  state.tokens.copy_to(file, tokens_at);
  state.ends.copy_to(file, ends_at);
  file.write(checksums_at, checksums.data(), checksums.size() * 8);
  file.sync();
  layout.attribute(format::kComplete, std::uint32_t{1});
  layout.close();
  file.sync();
  file.close();

  const std::uint64_t file_bytes = std::filesystem::file_size(temporary.path);
  rename_durably(temporary.path, state.path);
  temporary.path.clear();
  return {info.tokens, info.documents, file_bytes, info.content_hash};
}

}  // namespace shoestring
