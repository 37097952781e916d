// A suite of questions, and how answers to them are compared.
#include "core/generation/suite.h"

#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] {
    for (const SuiteRequest& request : read_suite(file.path())) {
      if (words_of(request.context) < 1) contradiction("a text of no words");
      if (characters_of(request.context) > static_cast<std::int64_t>(request.context.size())) {
        contradiction("more characters than bytes");
      }
      for (const std::string& target : request.targets) {
        if (!exact_match(request, target)) contradiction("a target is not its own match: " + target);
      }
    }
  });
}

}  // namespace shoestring::fuzz
