// The published rules of curation.h. Not for the reader of corpora.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "data/curation.h"
#include "data/document_text.h"

namespace shoestring {

struct PresetRule {
  CurationRule rule;
  std::function<bool(const DocumentText&)> broken;
};

/// Of "gopher" or "c4"; empty for another name.
std::vector<PresetRule> preset_rules(std::string_view preset);

}  // namespace shoestring
