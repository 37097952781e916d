#include "tools/model_folder.h"

#include "core/training/checkpoint.h"
#include "tools/messages.h"

namespace shoestring {

std::filesystem::path model_folder_of(const std::filesystem::path& place) {
  return model_folder_of(place, [](const std::string& text) { say("{}", text); });
}

}  // namespace shoestring
