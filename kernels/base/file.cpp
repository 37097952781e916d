#include "kernels/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/interrupted.h"
#include "kernels/base/lfs_pointer.h"

namespace shoestring {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 20;

int retry_open(const char* path, int flags, mode_t mode) {
  int descriptor = -1;
  do {
    descriptor = ::open(path, flags, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

/// What a person can do about it; empty where nothing is known to help.
const char* remedy_of(int error) {
  switch (error) {
    case EMFILE: return "; raise `ulimit -n`";
    case ENFILE: return "; raise fs.file-max";
    case ENOMEM: return "; look at `ulimit -v`, vm.max_map_count and memory.max of the control group";
    case ENOSPC:
    case EDQUOT: return "; make room: of bytes, or of files (`df -i`)";
    case EFBIG: return "; look at `ulimit -f`, and at what the file system takes";
    case EIO: return "; look at the disk, and at the system's log of it";
    case EACCES:
    case EPERM: return "; look at the rights of the file and of its folders";
    case EROFS: return "; it is mounted read-only";
    case ESTALE: return "; the network file system lost it: mount it anew";
    case ENOENT: return "; look at its spelling, and whether its disk is mounted";
    case ENOTDIR: return "; a file stands where a folder must be: move it, or name another place";
    case ENOTEMPTY:
    case EEXIST: return "; move what is there, or name another place";
    case EISDIR: return "; name a file";
    case ELOOP: return "; its links lead in a circle, or may not be followed: name what they lead to";
    case ENAMETOOLONG: return "; choose a shorter name";
    case ENXIO: return "; a pipe without a reader, or a device that is not there, stands in its place: move it";
    case EBUSY: return "; wait until nobody uses it";
    default: return "";
  }
}

}  // namespace

std::string system_reason(int error) { return std::string(std::strerror(error)) + remedy_of(error); }

void fail_io(const std::filesystem::path& path, std::string_view what) {
  const int error = errno;
  const ExitCode code = error == ENOENT || error == ENOTDIR ? ExitCode::missing_input : ExitCode::io;
  fail(code, "{}: cannot {}: {}", path.string(), what, system_reason(error));
}

FileHandle::~FileHandle() { close(); }
FileHandle::FileHandle(FileHandle&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}
void FileHandle::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

ContentHash::ContentHash() : state_(XXH3_createState()) {
  check(state_ != nullptr && XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_)) == XXH_OK, "no hash state");
}
ContentHash::~ContentHash() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
void ContentHash::add(const void* data, std::size_t bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
}
std::string ContentHash::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}
std::string content_hash(std::string_view bytes) {
  ContentHash hash;
  hash.add(bytes.data(), bytes.size());
  return hash.hex();
}

FileHandle open_for_reading(const std::filesystem::path& path) {
  FileHandle file(retry_open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0));
  if (!file.open()) {
    fail_io(path, "open it for reading");
  }
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail_io(path, "read its status");
  if (!S_ISREG(status.st_mode)) fail(ExitCode::bad_data, "{}: is not a regular file; name one", path.string());
  return file;
}

std::int64_t file_bytes(const FileHandle& file, const std::filesystem::path& path) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail_io(path, "read its size");
  return status.st_size;
}

void read_at(const FileHandle& file, const std::filesystem::path& path, std::int64_t offset, void* to,
             std::int64_t bytes) {
  auto* next = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file.get(), next, static_cast<std::size_t>(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_io(path, "read it");
    if (got == 0)
      fail(ExitCode::bad_data, "{}: ends before byte {}; it was cut short: restore a copy", path.string(),
           offset + bytes);
    next += got;
    offset += got;
    bytes -= got;
  }
}

std::string read_file(const std::filesystem::path& path, std::int64_t limit_bytes) {
  const FileHandle file = open_for_reading(path);
  const std::int64_t bytes = file_bytes(file, path);
  if (bytes > limit_bytes) {
    fail(ExitCode::bad_data, "{}: {} bytes exceed the limit of {}", path.string(), bytes, limit_bytes);
  }
  std::string content(static_cast<std::size_t>(bytes), '\0');
  read_at(file, path, 0, content.data(), bytes);
  if (content.starts_with(kLfsPointer)) {
    fail(ExitCode::bad_data, "{}: holds a pointer of Git LFS and no content; {}", path.string(), kLfsRemedy);
  }
  return content;
}

std::string hash_file(const std::filesystem::path& path, const Between& between) {
  const FileHandle file = open_for_reading(path);
  const std::int64_t bytes = file_bytes(file, path);
  std::vector<char> buffer(kChunk);
  ContentHash hash;
  for (std::int64_t offset = 0; offset < bytes;) {
    const auto part = std::min<std::int64_t>(static_cast<std::int64_t>(buffer.size()), bytes - offset);
    read_at(file, path, offset, buffer.data(), part);
    hash.add(buffer.data(), static_cast<std::size_t>(part));
    offset += part;
    if (between) between();
  }
  return hash.hex();
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)) {
  file_ =
      FileHandle(retry_open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
  if (!file_.open()) {
    const int error = errno;
    fail(ExitCode::io, "{}: cannot create it: {}{}", path_.string(), system_reason(error),
         error == ENOENT ? "; make its folder first" : "");
  }
}

void FileWriter::write(const void* data, std::size_t bytes) {
  hash_.add(data, bytes);
  bytes_ += static_cast<std::int64_t>(bytes);
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(file_.get(), next, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_io(path_, "write to it");
    next += put;
    bytes -= static_cast<std::size_t>(put);
  }
}

void FileWriter::finish() {
  if (sync_descriptor(file_.get()) != 0) fail_io(path_, "bring it to disk (fsync)");
  file_.close();
}

std::vector<std::filesystem::path> list_directory(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> entries;
  std::error_code error;
  std::filesystem::directory_iterator at(directory, error);
  while (!error && at != std::filesystem::directory_iterator()) {
    entries.push_back(at->path());
    at.increment(error);
  }
  if (error) {
    errno = error.value();
    fail_io(directory, "list the folder");
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::filesystem::file_type type_of(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_type type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) return type;
  if (error) fail(ExitCode::io, "{}: cannot be looked at: {}", path.string(), system_reason(error.value()));
  return type;
}

void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path name = directory.empty() ? "." : directory;
  const FileHandle handle(retry_open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (!handle.open()) fail_io(name, "open the folder");
  // EINVAL: a file system that does not sync folders
  if (sync_descriptor(handle.get()) != 0 && errno != EINVAL) fail_io(name, "bring the folder to disk (fsync)");
}

namespace {

/// Of the sibling that replace_file writes; the number of the process stands behind it.
std::filesystem::path sibling_stem(const std::filesystem::path& path) {
  std::filesystem::path stem = path;
  return stem += ".tmp";
}

}  // namespace

void remove_abandoned(const std::filesystem::path& path) {
  const std::string stem = sibling_stem(path).filename().string();
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (type_of(folder) != std::filesystem::file_type::directory) return;
  for (const std::filesystem::path& entry : list_directory(folder)) {
    const std::string name = entry.filename().string();
    if (!name.starts_with(stem) || name.size() == stem.size()) continue;
    const bool numbered = name.find_first_not_of("0123456789", stem.size()) == std::string::npos;
    struct stat status {};
    if (!numbered || ::lstat(entry.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    ::unlink(entry.c_str());  // where that is refused it stays, and harms nobody
  }
}

void replace_file(const std::filesystem::path& path, std::string_view content) {
  struct stat there {};
  if (::lstat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode) && !S_ISLNK(there.st_mode)) {
    fail(ExitCode::io, "{}: is no regular file, which alone is replaced; move it, or name another place",
         path.string());
  }
  std::filesystem::path temporary = sibling_stem(path);
  temporary += std::to_string(getpid());
  try {
    FileWriter writer(temporary);
    writer.write(content);
    writer.finish();
    rename_durably(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void make_directories(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (!error) return;
  std::filesystem::path part;
  for (const std::filesystem::path& name : directory) {
    part /= name;
    std::error_code ignored;
    if (!std::filesystem::is_symlink(part, ignored) || std::filesystem::exists(part, ignored)) continue;
    fail(ExitCode::missing_input,
         "{}: cannot create the folder: {} is a link to {}, which is not there; mount the disk it lies on, or remove "
         "the link",
         directory.string(), part.string(), std::filesystem::read_symlink(part, ignored).string());
  }
  fail(ExitCode::io, "{}: cannot create the folder: {}", directory.string(), system_reason(error.value()));
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_io(to, fmt::format("rename {} to it", from.filename().string()));
  sync_directory(to.parent_path());
}

}  // namespace shoestring
