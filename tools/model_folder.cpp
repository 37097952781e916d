#include "tools/model_folder.h"

#include "core/training/checkpoint.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tools/messages.h"

namespace shoestring {

namespace fs = std::filesystem;

fs::path model_folder_of(const fs::path& place) {
  if (type_of(place / "config.json") != fs::file_type::not_found) return place;
  if (type_of(place) == fs::file_type::not_found)
    fail(ExitCode::missing_input, "{}: there is no such run or model folder", place.string());
  const CheckpointStore store(place / "checkpoints");
  const auto newest = store.newest([](const std::string& text) { say("{}", text); });
  if (!newest)
    fail(ExitCode::missing_input, "{}: is neither a model folder nor a run with a checkpoint", place.string());
  return *newest;
}

}  // namespace shoestring
