#include "kernels/base/own_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = "being_filled";
constexpr const char* kMarkToBe = "being_filled_soon";

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

/// The stem, the number of a process, perhaps another.
bool is_of_the_kind(const std::string& name, const std::string& stem) {
  return name.starts_with(stem) && name.size() > stem.size() &&
         std::isdigit(static_cast<unsigned char>(name[stem.size()])) != 0 &&
         name.find_first_not_of("0123456789_", stem.size()) == std::string::npos;
}

void remove_abandoned_folders(const fs::path& stem) {
  std::error_code refused;
  fs::directory_iterator next(stem.has_parent_path() ? stem.parent_path() : ".", refused);
  std::vector<fs::path> found;
  for (; !refused && next != fs::directory_iterator(); next.increment(refused)) {
    if (is_of_the_kind(next->path().filename().string(), stem.filename().string())) found.push_back(next->path());
  }
  for (const fs::path& entry : found) {
    if (!fs::is_directory(fs::symlink_status(entry, refused))) continue;
    const FileHandle mark(::open((entry / kMark).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct flock lock = whole_file();
    if (!mark.open() || ::fcntl(mark.get(), F_OFD_SETLK, &lock) != 0) continue;
    fs::remove_all(entry, refused);
  }
}

}  // namespace

OwnFolder::OwnFolder(const fs::path& stem) {
  if (stem.has_parent_path()) make_directories(stem.parent_path());
  remove_abandoned_folders(stem);
  const std::string first = fmt::format("{}{}", stem.string(), ::getpid());
  path_ = first;  // of a process of the same number on another machine, perhaps
  for (int number = 1; ::mkdir(path_.c_str(), 0777) != 0; ++number) {
    if (errno != EEXIST) fail_io(std::exchange(path_, fs::path()), "create it");
    path_ = fmt::format("{}_{}", first, number);
  }
  mark();
}

OwnFolder::~OwnFolder() {
  std::error_code stays;
  if (!path_.empty()) fs::remove_all(path_, stays);
}

// It is locked before it has its name: nobody finds it free. Without a lock there is none, and nobody takes it for
// free.
void OwnFolder::mark() {
  const fs::path unheld = path_ / kMarkToBe;
  mark_ = FileHandle(::open(unheld.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!mark_.open()) return;
  struct flock lock = whole_file();
  const bool held = ::fcntl(mark_.get(), F_OFD_SETLK, &lock) == 0;
  std::error_code stays;
  if (held) {
    fs::rename(unheld, path_ / kMark, stays);
  } else {
    fs::remove(unheld, stays);
  }
}

// The mark goes last: a process that is killed here leaves a whole folder with an empty file more, not one that bears
// the wrong name for ever.
void OwnFolder::become(const fs::path& out) {
  sync_directory(path_);
  rename_durably(path_, out);
  path_.clear();
  std::error_code stays;
  fs::remove(out / kMark, stays);
}

}  // namespace shoestring
