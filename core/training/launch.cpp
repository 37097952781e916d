#include "core/training/launch.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/recipe/explain.h"
#include "core/recipe/names.h"
#include "core/recipe/parse.h"
#include "core/training/rank_texts.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "kernels/base/host.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

template <std::size_t Size>
void put(std::array<char, Size>& to, const std::string& text) {
  std::memcpy(to.data(), text.data(), std::min(text.size(), Size - 1));
}

template <std::size_t Size>
std::string text_of(const std::array<char, Size>& from) {
  return {from.data(), ::strnlen(from.data(), Size)};
}

/// Ranks by what `key` says of each, in the order in which they come.
template <class Key>
std::vector<std::pair<std::string, std::vector<int>>> grouped(const std::vector<RankPlace>& places, const Key& key) {
  std::vector<std::pair<std::string, std::vector<int>>> groups;
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    const std::string of_rank = key(places[rank]);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& one) { return one.first == of_rank; });
    if (group == groups.end()) group = groups.insert(groups.end(), {of_rank, {}});
    group->second.push_back(static_cast<int>(rank));
  }
  return groups;
}

std::string place_text(const std::vector<RankPlace>& places, int rank) {
  return fmt::format("rank {} (host {})", rank, text_of(places[static_cast<std::size_t>(rank)].host));
}

std::string difference_text(const Recipe& first, const Recipe& own) {
  constexpr std::size_t kShown = 8;
  std::string text;
  const std::vector<RecipeDifference> differences = all_differences(first, own);
  for (std::size_t i = 0; i < std::min(kShown, differences.size()); ++i) {
    text += fmt::format("\n  {} = {}, not {}", differences[i].key, differences[i].now, differences[i].before);
  }
  if (differences.size() > kShown) text += fmt::format("\n  and {} more", differences.size() - kShown);
  return text;
}

}  // namespace

std::string program_hash(const std::filesystem::path& process) {
  const std::filesystem::path program = process / "exe";
  if (type_of(program) == std::filesystem::file_type::not_found) {
    fail(ExitCode::missing_input,
         "{}: is not there, so that nobody can tell whether all ranks run one program: mount /proc (mount -t proc proc "
         "/proc; chroot and some containers begin without)",
         program.string());
  }
  return hash_file(program);
}

RankPlace own_place(const Recipe& recipe) {
  RankPlace place;
  put(place.host, host_name());
  put(place.processor, cpu_features().to_string());
  put(place.program, program_hash());
  put(place.recipe, recipe_hash(recipe));
  put(place.cores, content_hash(Workers::cores_name()));
  place.usable_cores = Workers::usable_cores();
  place.process = ::getpid();
  return place;
}

std::vector<RankPlace> gather_places(Communicator& world, const RankPlace& own) {
  std::vector<RankPlace> places(static_cast<std::size_t>(world.size()));
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(RankPlace));
  world.all_gather(view_of(static_cast<void*>(places.data()), DType::u8, {kBytes * world.size()}),
                   view_of(static_cast<const void*>(&own), DType::u8, {kBytes}));
  return places;
}

std::vector<RankPlace> checked_places(Communicator& world, const Recipe& recipe) {
  std::vector<RankPlace> places = gather_places(world, own_place(recipe));
  check_launch(world, places, recipe);
  return places;
}

void check_launch(Communicator& world, const std::vector<RankPlace>& places, const Recipe& recipe) {
  const auto others = [&](const auto& key) {
    std::vector<int> ranks;
    for (std::size_t rank = 1; rank < places.size(); ++rank) {
      if (key(places[rank]) != key(places[0])) ranks.push_back(static_cast<int>(rank));
    }
    return ranks;
  };
  if (const auto ranks = others([](const RankPlace& place) { return text_of(place.program); }); !ranks.empty()) {
    fail(ExitCode::missing_input,
         "{} of {} run another build of this program than {}, first {}: their results would not belong together; put "
         "the same file on every host, or on a file system that all hosts see",
         ranks_of(ranks), places.size(), place_text(places, 0), place_text(places, ranks.front()));
  }
  const auto ranks = others([](const RankPlace& place) { return text_of(place.recipe); });
  if (ranks.empty()) return;
  const std::string text = broadcast_text(world, canonical_text(recipe), 0);
  std::string differences;
  if (world.rank() == ranks.front()) differences = difference_text(parse_recipe_text(text, "rank 0").recipe, recipe);
  fail(ExitCode::bad_recipe,
       "{} of {} read another recipe than {}; {} has{}\ngive every rank the same file and options", ranks_of(ranks),
       places.size(), place_text(places, 0), place_text(places, ranks.front()),
       broadcast_text(world, differences, ranks.front()));
}

std::string unlike_processors(const std::vector<RankPlace>& places) {
  const auto kinds = grouped(places, [](const RankPlace& place) { return text_of(place.processor); });
  if (kinds.size() == 1) return {};
  std::string list;
  for (const auto& [processor, ranks] : kinds) {
    list += fmt::format("{}{} {}: {}", list.empty() ? "" : "; ", ranks_of(ranks), ranks.size() == 1 ? "has" : "have",
                        processor);
  }
  return fmt::format(
      "processors differ ({}): ops choose other rows there, so the bits of a result depend on which rank computed it; "
      "SHOESTRING_MAX_ISA, set on all ranks to what every one of them offers, makes them equal",
      list);
}

std::string launch_text(const std::vector<RankPlace>& places, const Layout& layout, int threads) {
  const auto hosts = grouped(places, [](const RankPlace& place) { return text_of(place.host); });
  std::string text = fmt::format("launch: {} rank{} on {} host{}:", places.size(), places.size() == 1 ? "" : "s",
                                 hosts.size(), hosts.size() == 1 ? "" : "s");
  constexpr std::size_t kShown = 8;
  for (std::size_t i = 0; i < std::min(kShown, hosts.size()); ++i) {
    text += fmt::format("{} {} ({})", i == 0 ? "" : ",", hosts[i].first, ranks_of(hosts[i].second));
  }
  if (hosts.size() > kShown) text += fmt::format(" and {} more", hosts.size() - kShown);
  const auto shares = grouped(places, [](const RankPlace& place) { return text_of(place.cores); });
  std::size_t most = 0;
  for (const auto& [cores, ranks] : shares) most = std::max(most, ranks.size());
  text += fmt::format(
      "\nbinding: rank 0 may use {} core{}, {}; {} thread{} a rank", places[0].usable_cores,
      places[0].usable_cores == 1 ? "" : "s",
      most == 1 ? std::string("which no other rank shares") : fmt::format("up to {} ranks share the same", most),
      threads, threads == 1 ? "" : "s");
  const MeshShape& shape = layout.shape;
  text += fmt::format("\nlayout: data {} x pipeline {}, expert {}", shape.data, shape.pipeline, shape.expert);
  if (layout.stage_count() == 1) return text + "; every rank has the whole model";
  std::string layers;
  for (const std::int64_t count : layout.stage_layers) layers += fmt::format("{}{}", layers.empty() ? "" : " ", count);
  return text + fmt::format("; schedule {}, stages of {} layers", word(layout.schedule.name), layers);
}

}  // namespace shoestring
