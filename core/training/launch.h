// What was launched: where each rank runs, with which program and which recipe. Ranks that were started apart, or from
// unlike files, are found before anything is spent, and the first lines of a run say what there is.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/training/layout.h"
#include "parallel/communicator.h"

namespace shoestring {

/// A rank as it tells the others of itself.
struct RankPlace {
  std::array<char, 64> host{};
  std::array<char, 96> processor{};  ///< CpuFeatures, by name
  std::array<char, 33> program{};    ///< hash of the running file
  std::array<char, 33> recipe{};     ///< hash of the recipe as it was read
  std::array<char, 33> cores{};      ///< hash of Workers::cores_name: equal where ranks compete for cores
  std::int32_t usable_cores = 0;
  std::int32_t process = 0;
};
static_assert(std::is_trivially_copyable_v<RankPlace>);

/// This process.
RankPlace own_place(const Recipe& recipe);
/// Of the program that runs as `process`. Throws Error(missing_input) where the system does not show it.
std::string program_hash(const std::filesystem::path& process = "/proc/self");
/// Every rank's, by rank. Collective.
std::vector<RankPlace> gather_places(Communicator& world, const RankPlace& own);
/// Every rank's, checked as below.
std::vector<RankPlace> checked_places(Communicator& world, const Recipe& recipe);

/// Throws the same on every rank: Error(missing_input) where ranks run another program than rank 0, Error(bad_recipe)
/// where they read another recipe, with the keys that differ on the first of them. Collective.
void check_launch(Communicator& world, const std::vector<RankPlace>& places, const Recipe& recipe);

/// What to tell of ranks whose processors offer other instructions than rank 0's: ops choose other rows there, so bits
/// depend on which rank has what. Empty where all are alike.
std::string unlike_processors(const std::vector<RankPlace>& places);

/// "4 ranks on 2 hosts: node1 (ranks 0-1), node2 (ranks 2-3)", how they share cores, and the layout: three lines.
std::string launch_text(const std::vector<RankPlace>& places, const Layout& layout, int threads);

}  // namespace shoestring
