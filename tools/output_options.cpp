#include "tools/output_options.h"

#include "kernels/base/check.h"
#include "kernels/base/output_file.h"

namespace shoestring {

void check_outputs(const std::string& command, const std::vector<NamedFile>& outputs,
                   const std::vector<NamedFile>& inputs) {
  std::vector<NamedFile> others = inputs;
  for (const NamedFile& output : outputs) {
    for (const NamedFile& other : others) {
      if (!same_file(output.path, other.path)) continue;
      fail(ExitCode::usage, "{}: {} and {} are one file, {}; give {} another", command, other.option, output.option,
           output.path.string(), output.option);
    }
    others.push_back(output);
  }
  for (const NamedFile& output : outputs) check_output(output.path, output.option);
}

}  // namespace shoestring
