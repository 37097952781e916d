// A library to be preloaded: makes the n-th call of one kind go wrong, in the process that loads it and not in its
// children, and leaves a mark when it did. With nothing asked for it counts the calls. See README.md.
//
//   SHOESTRING_FAULT=KIND:N:WHAT   KIND as in kKinds; WHAT: an errno (ENOSPC), the same with + (every call from the
//   n-th
//                                  on), `kill` (before the call), `killed` (after it), `asked` (SIGTERM before it),
//                                  `short` (a write takes half), or for clock the seconds by which it jumps
//   SHOESTRING_FAULT_UNDER=FOLDER  files that count: open, write, fsync, rename, unlink of anything else go through
//   SHOESTRING_FAULT_RANK=R        only on this rank of mpirun
//   SHOESTRING_FAULT_MARK=FILE     made when the fault came; without SHOESTRING_FAULT the counts are written to it
//
// MPI's handles are pointers in Open MPI, the only one that is known here.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string_view>

namespace {

enum Kind { open_, write_, fsync_, rename_, unlink_, mmap_, memory_, thread_, fork_, clock_, send_, receive_, kinds };
constexpr std::array<std::string_view, kinds> kKinds = {"open",   "write",  "fsync", "rename", "unlink", "mmap",
                                                        "memory", "thread", "fork",  "clock",  "send",   "receive"};
constexpr std::size_t kLargeBytes = std::size_t{64} << 10;  // of memory: smaller pieces are not failed

enum class What { nothing, error, kill, killed, asked, cut, jump };

struct Plan {
  int kind = -1;
  long number = 0;
  What what = What::nothing;
  int error = 0;
  bool sticky = false;
  long jump_seconds = 0;
  const char* under = nullptr;
  std::size_t under_length = 0;
  const char* mark = nullptr;
  pid_t process = 0;  // 0: not yet read; nothing is failed before
};

Plan g_plan;
std::array<std::atomic<long>, kinds> g_calls{};
std::atomic<bool> g_came{false};
std::atomic<bool> g_mpi_starts{false};  // what it asks for then is its own affair: it ends without memory, unasked
std::atomic<bool>* g_jumped = nullptr;  // shared with children: a clock that jumps does so for all

struct Named {
  std::string_view name;
  int value;
};
constexpr Named kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EACCES", EACCES}, {"EMFILE", EMFILE},
                             {"ENOMEM", ENOMEM}, {"EAGAIN", EAGAIN}, {"EINTR", EINTR},   {"EDQUOT", EDQUOT},
                             {"ESTALE", ESTALE}, {"EROFS", EROFS}};

int raw_open(const char* path) {
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT, 0644));
}

void mark(const char* text, std::size_t bytes) {
  if (g_plan.mark == nullptr) return;
  const int file = raw_open(g_plan.mark);
  ::syscall(SYS_write, file, text, bytes);
  ::syscall(SYS_close, file);
}

void parse(std::string_view word) {
  const auto first = word.find(':');
  const auto second = first == word.npos ? first : word.find(':', first + 1);
  if (second == word.npos) return;
  for (int kind = 0; kind < kinds; ++kind) {
    if (kKinds[static_cast<std::size_t>(kind)] == word.substr(0, first)) g_plan.kind = kind;
  }
  g_plan.number = std::strtol(word.data() + first + 1, nullptr, 10);
  std::string_view what = word.substr(second + 1);
  g_plan.sticky = what.ends_with('+');
  if (g_plan.sticky) what.remove_suffix(1);
  g_plan.what = what == "kill"     ? What::kill
                : what == "killed" ? What::killed
                : what == "asked"  ? What::asked
                : what == "short"  ? What::cut
                                   : What::jump;
  for (const Named& known : kErrors) {
    if (known.name != what) continue;
    g_plan.what = What::error;
    g_plan.error = known.value;
  }
  if (g_plan.what == What::jump) std::from_chars(what.data(), what.data() + what.size(), g_plan.jump_seconds);
}

__attribute__((constructor)) void begin() {
  const char* rank = std::getenv("SHOESTRING_FAULT_RANK");
  const char* own = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank != nullptr && own != nullptr && std::strcmp(rank, own) != 0) return;
  g_plan.under = std::getenv("SHOESTRING_FAULT_UNDER");
  g_plan.under_length = g_plan.under != nullptr ? std::strlen(g_plan.under) : 0;
  g_plan.mark = std::getenv("SHOESTRING_FAULT_MARK");
  if (const char* word = std::getenv("SHOESTRING_FAULT")) parse(word);
  const long page = ::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page > 0) g_jumped = new (reinterpret_cast<void*>(page)) std::atomic<bool>(false);
  g_plan.process = ::getpid();
}

__attribute__((destructor)) void end() {
  if (g_plan.process != ::getpid() || g_plan.kind >= 0) return;
  std::array<char, 1024> text{};
  int at = 0;
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    at += std::snprintf(text.data() + at, text.size() - static_cast<std::size_t>(at), "%.*s %ld\n",
                        static_cast<int>(kKinds[kind].size()), kKinds[kind].data(), g_calls[kind].load());
  }
  mark(text.data(), static_cast<std::size_t>(at));
}

/// Counts a call; whether it is the one. Ends the process where that is what was asked for.
What look(Kind kind) {
  if (g_plan.process == 0 || g_plan.process != ::getpid()) return What::nothing;
  const long number = ++g_calls[kind];
  if (g_plan.kind != kind || !(g_plan.sticky ? number >= g_plan.number : number == g_plan.number)) return What::nothing;
  if (!g_came.exchange(true)) mark("came\n", 5);
  if (g_plan.what == What::kill) ::kill(::getpid(), SIGKILL);
  if (g_plan.what == What::asked) {
    ::kill(::getpid(), SIGTERM);
    return What::nothing;
  }
  return g_plan.what;
}

/// After a call that was looked at.
void after(What what) {
  if (what == What::killed) ::kill(::getpid(), SIGKILL);
}

bool fails(What what) {
  if (what != What::error) return false;
  errno = g_plan.error;
  return true;
}

bool memory_fails(std::size_t bytes) { return bytes >= kLargeBytes && !g_mpi_starts && fails(look(memory_)); }

bool counts(const char* path) {
  if (g_plan.under == nullptr) return true;
  if (path[0] == '/') return std::strncmp(path, g_plan.under, g_plan.under_length) == 0;
  return true;  // the driver runs the program inside the folder
}

bool counts(int file) {
  if (g_plan.under == nullptr) return true;
  std::array<char, 64> link{};
  std::array<char, 4096> path{};
  std::snprintf(link.data(), link.size(), "/proc/self/fd/%d", file);
  const ssize_t length = ::readlink(link.data(), path.data(), path.size() - 1);
  return length > 0 && path[0] == '/' && counts(path.data());
}

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

/// What is left of a write once it was looked at: all of it, half, nothing (-1).
ssize_t looked_at(What what, std::size_t bytes) {
  if (fails(what)) return -1;
  return static_cast<ssize_t>(what == What::cut && bytes > 1 ? bytes / 2 : bytes);
}

int opened(const char* name, const char* path, int flags, mode_t mode) {
  const What what = counts(path) ? look(open_) : What::nothing;
  if (fails(what)) return -1;
  const int file = next<int (*)(const char*, int, mode_t)>(name)(path, flags, mode);
  after(what);
  return file;
}

int opened_at(const char* name, int folder, const char* path, int flags, mode_t mode) {
  const What what = counts(path) ? look(open_) : What::nothing;
  if (fails(what)) return -1;
  const int file = next<int (*)(int, const char*, int, mode_t)>(name)(folder, path, flags, mode);
  after(what);
  return file;
}

mode_t mode_of(int flags, va_list& arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened("open", path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened("open64", path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened_at("openat", folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened_at("openat64", folder, path, flags, mode);
}

// What _FORTIFY_SOURCE makes of calls without a mode.
int __open_2(const char* path, int flags) { return opened("open", path, flags, 0); }
int __open64_2(const char* path, int flags) { return opened("open64", path, flags, 0); }
int __openat_2(int folder, const char* path, int flags) { return opened_at("openat", folder, path, flags, 0); }
int __openat64_2(int folder, const char* path, int flags) { return opened_at("openat64", folder, path, flags, 0); }

ssize_t write(int file, const void* data, std::size_t bytes) {
  const What what = counts(file) ? look(write_) : What::nothing;
  const ssize_t most = looked_at(what, bytes);
  if (most < 0) return -1;
  const ssize_t put = ::syscall(SYS_write, file, data, most);
  after(what);
  return put;
}
ssize_t pwrite(int file, const void* data, std::size_t bytes, off_t at) {
  const What what = counts(file) ? look(write_) : What::nothing;
  const ssize_t most = looked_at(what, bytes);
  if (most < 0) return -1;
  const ssize_t put = ::syscall(SYS_pwrite64, file, data, most, at);
  after(what);
  return put;
}
ssize_t pwrite64(int file, const void* data, std::size_t bytes, off64_t at) { return pwrite(file, data, bytes, at); }

int fsync(int file) {
  const What what = counts(file) ? look(fsync_) : What::nothing;
  if (fails(what)) return -1;
  const int result = static_cast<int>(::syscall(SYS_fsync, file));
  after(what);
  return result;
}
int fdatasync(int file) { return fsync(file); }

int rename(const char* from, const char* to) {
  const What what = counts(to) ? look(rename_) : What::nothing;
  if (fails(what)) return -1;
  const int result = static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
  after(what);
  return result;
}

int unlink(const char* path) {
  const What what = counts(path) ? look(unlink_) : What::nothing;
  if (fails(what)) return -1;
  const int result = static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
  after(what);
  return result;
}
int unlinkat(int folder, const char* path, int flags) {
  const What what = counts(path) ? look(unlink_) : What::nothing;
  if (fails(what)) return -1;
  const int result = static_cast<int>(::syscall(SYS_unlinkat, folder, path, flags));
  after(what);
  return result;
}

void* mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t offset) {
  const What what = look(mmap_);
  if (fails(what)) return MAP_FAILED;
  void* memory = reinterpret_cast<void*>(::syscall(SYS_mmap, at, bytes, protection, flags, file, offset));
  after(what);
  return memory;
}
void* mmap64(void* at, std::size_t bytes, int protection, int flags, int file, off64_t offset) {
  return mmap(at, bytes, protection, flags, file, offset);
}

void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* memory, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

void* malloc(std::size_t bytes) {
  if (memory_fails(bytes)) return nullptr;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  if (memory_fails(count * bytes)) return nullptr;
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  if (memory_fails(bytes)) return nullptr;
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (memory_fails(bytes)) return nullptr;
  return __libc_memalign(alignment, bytes);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) {
  const What what = look(thread_);
  if (what == What::error) return g_plan.error;
  const int result = next<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create")(
      thread, attributes, body, argument);
  after(what);
  return result;
}

pid_t fork(void) {
  if (!g_mpi_starts && fails(look(fork_))) return -1;
  return next<pid_t (*)()>("fork")();
}
pid_t _Fork(void) {
  if (fails(look(fork_))) return -1;
  return next<pid_t (*)()>("_Fork")();
}

int clock_gettime(clockid_t which, timespec* now) {
  const int result = static_cast<int>(::syscall(SYS_clock_gettime, which, now));
  if (which != CLOCK_REALTIME) return result;
  if (look(clock_) == What::jump && g_jumped != nullptr) *g_jumped = true;
  if (g_jumped != nullptr && *g_jumped) now->tv_sec += g_plan.jump_seconds;
  return result;
}

constexpr int kMpiError = 16;  // MPI_ERR_OTHER

int MPI_Init_thread(int* count, char*** words, int wanted, int* provided) {
  g_mpi_starts = true;
  const int result = next<int (*)(int*, char***, int, int*)>("MPI_Init_thread")(count, words, wanted, provided);
  g_mpi_starts = false;
  return result;
}

int MPI_Issend(const void* data, int count, void* type, int peer, int tag, void* comm, void* request) {
  const What what = look(send_);
  if (what == What::error) return kMpiError;
  const int result = next<int (*)(const void*, int, void*, int, int, void*, void*)>("MPI_Issend")(
      data, count, type, peer, tag, comm, request);
  after(what);
  return result;
}
int MPI_Imrecv(void* data, int count, void* type, void* message, void* request) {
  const What what = look(receive_);
  if (what == What::error) return kMpiError;
  const int result = next<int (*)(void*, int, void*, void*, void*)>("MPI_Imrecv")(data, count, type, message, request);
  after(what);
  return result;
}

}  // extern "C"
