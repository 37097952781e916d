// A library to be preloaded into the tests: writes every Error that is thrown as a line "code<TAB>text" into
// thrown_texts.txt of the build. tests/tools/thrown_texts.py judges them. The C++ runtime's own __cxa_throw goes on.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <typeinfo>

#include "kernels/base/check.h"

namespace {

void note(const shoestring::Error& error) {
  std::string line = std::to_string(static_cast<int>(error.code())) + "\t";
  for (const char c : std::string(error.what())) {
    if (c == '\n') {
      line += "\\n";
    } else {
      line += c;
    }
  }
  line += '\n';
  // A test that limits the size of files means its own: the limit is lifted as far as the hard one for this line.
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  if (limit.rlim_max != RLIM_INFINITY) return;  // a child of such a test; what it throws is thrown elsewhere too
  const rlimit lifted{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_FSIZE, &lifted);
  const int file = ::open(SHOESTRING_THROWN_TEXTS, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const bool kept = file < 0 || ::write(file, line.data(), line.size()) >= 0;
  ::close(file);
  ::setrlimit(RLIMIT_FSIZE, &limit);
  if (!kept) std::abort();  // a text that is lost would be judged good
}

}  // namespace

extern "C" [[noreturn]] void __cxa_throw(void* thrown, std::type_info* type, void (*destroy)(void*)) {
  if (*type == typeid(shoestring::Error)) note(*static_cast<const shoestring::Error*>(thrown));
  using Throw = void (*)(void*, std::type_info*, void (*)(void*));
  reinterpret_cast<Throw>(::dlsym(RTLD_NEXT, "__cxa_throw"))(thrown, type, destroy);
  __builtin_unreachable();
}
