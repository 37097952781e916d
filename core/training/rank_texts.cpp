#include "core/training/rank_texts.h"

#include <fmt/core.h>

#include "kernels/base/host.h"

namespace shoestring {
namespace {

/// "0-3, 6".
std::string runs_of(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", ranks[i]);
    if (last > i) text += fmt::format("-{}", ranks[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace

std::string ranks_of(const std::vector<int>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", runs_of(ranks));
}

std::string broadcast_text(Communicator& world, std::string text, int root) {
  auto bytes = static_cast<std::int64_t>(text.size());
  world.broadcast(view_of(&bytes, DType::i64, {1}), root);
  text.resize(static_cast<std::size_t>(bytes));
  if (bytes > 0) world.broadcast(view_of(text.data(), DType::u8, {bytes}), root);
  return text;
}

std::string place_of(Communicator& world, int rank) {
  return fmt::format("rank {} (host {})", rank, broadcast_text(world, host_name(), rank));
}

}  // namespace shoestring
