// What `data inspect` says of shards: on the terminal, and as a page of its own.
#pragma once

#include <string>

#include "data/shard_contents.h"

namespace shoestring {

std::string contents_text(const ShardContents& contents);
/// Self-contained; what stands in shards is shown as text, whatever it looks like.
std::string contents_page(const std::string& title, const ShardContents& contents);

}  // namespace shoestring
