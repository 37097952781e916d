// One process is one rank. `--ranks N` starts the whole suite again under mpirun; `--abort CODE` lets the last rank end
// the run with that code instead.
#include "parallel/communicator_mpi.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/workers.h"
#include "parallel/reduction.h"
#include "tests/parallel/communicator_conformance.h"

namespace shoestring {
namespace {

Communicator* g_world = nullptr;
std::atomic<bool> g_asked = false;

class MpiConformance : public ::testing::TestWithParam<testing::ConformanceCase> {};

TEST_P(MpiConformance, Holds) { GetParam().run(*g_world); }

INSTANTIATE_TEST_SUITE_P(World, MpiConformance,
                         ::testing::ValuesIn(testing::conformance_cases().begin(), testing::conformance_cases().end()),
                         [](const auto& parameter) { return parameter.param.name; });

// A launcher of another MPI makes N worlds of one rank: N devices paid, one used.
TEST(LaunchMismatch, ComparesWhatTheNearestLauncherSays) {
  using Variables = std::map<std::string, const char*>;
  const auto mismatch = [](const Variables& variables, int size) {
    return launch_mismatch(
        [&](const char* name) {
          const auto found = variables.find(name);
          return found == variables.end() ? nullptr : found->second;
        },
        size);
  };
  EXPECT_EQ(mismatch({}, 1), "");
  EXPECT_EQ(mismatch({{"OMPI_COMM_WORLD_SIZE", "4"}}, 4), "");
  EXPECT_EQ(mismatch({{"PMI_SIZE", "1"}}, 1), "");
  EXPECT_NE(mismatch({{"OMPI_COMM_WORLD_SIZE", "4"}}, 1).find("started 4 processes"), std::string::npos);
  EXPECT_NE(mismatch({{"PMI_SIZE", "2"}}, 1).find("2 processes (PMI_SIZE), but this MPI sees 1"), std::string::npos);
  EXPECT_NE(mismatch({{"SLURM_STEP_NUM_TASKS", "2"}}, 1).find("SLURM_STEP_NUM_TASKS"), std::string::npos);
  // mpirun within a step of srun, which started mpirun's daemons only.
  EXPECT_EQ(mismatch({{"OMPI_COMM_WORLD_SIZE", "8"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"PMI_SIZE", "2"}}, 8), "");
  // A launcher that says no count: no rank is outside of its world.
  for (const char* name : {"PMIX_RANK", "PMI_RANK"}) {
    EXPECT_EQ(mismatch({{name, "0"}}, 1), "") << name;
    EXPECT_EQ(mismatch({{name, "3"}}, 4), "") << name;
    for (const char* rank : {"1", "4294967294"}) {
      EXPECT_NE(
          mismatch({{name, rank}}, 1).find(std::string("number ") + rank + " (" + name + "), but this MPI sees 1"),
          std::string::npos)
          << name;
    }
  }
  EXPECT_EQ(mismatch({{"OMPI_COMM_WORLD_SIZE", "2"}, {"PMIX_RANK", "7"}}, 2), "") << "of the launcher before";
}

TEST(LaterInLaunch, IsWhatTheNearestLauncherSays) {
  using Variables = std::map<std::string, const char*>;
  const auto later = [](const Variables& variables) {
    return later_in_launch([&](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second;
    });
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(later({}), Names{});
  EXPECT_EQ(later({{"OMPI_COMM_WORLD_RANK", "0"}, {"PMIX_RANK", "0"}}), Names{});
  EXPECT_EQ(later({{"OMPI_COMM_WORLD_RANK", "2"}, {"PMIX_RANK", "2"}}), (Names{"OMPI_COMM_WORLD_RANK", "PMIX_RANK"}));
  EXPECT_EQ(later({{"SLURM_PROCID", "1"}}), Names{"SLURM_PROCID"});
  EXPECT_EQ(later({{"OMPI_COMM_WORLD_RANK", "0"}, {"SLURM_PROCID", "1"}}), Names{})
      << "mpirun's first on a second node";
}

TEST(LaunchSign, IsAnyVariableOfALauncher) {
  const std::vector<const char*> names = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK"};
  std::map<const char*, std::string> before;  // of an mpirun that started this test
  for (const char* name : names) {
    if (const char* value = std::getenv(name)) before[name] = value;
    unsetenv(name);
  }
  EXPECT_EQ(mpi_launch_sign(), "");
  for (const char* name : names) {
    setenv(name, "1", 1);
    EXPECT_EQ(mpi_launch_sign(), name);
    unsetenv(name);
  }
  for (const auto& [name, value] : before) setenv(name, value.c_str(), 1);
}

TEST(MpiWorld, CanonicalReductionEqualsOneRank) {
  constexpr std::int64_t kElements = 3 * kShardBlock + 5;
  const int groups = 2 * g_world->size();
  const auto gradient = [&](int group) {
    Tensor values(DType::f32, {kElements});
    for (std::int64_t i = 0; i < kElements; ++i) {
      values.as<float>()[i] = 1.0F / static_cast<float>(1 + (i * 7 + group * 131) % 1009);
    }
    return values;
  };
  Workers workers(1);
  Stream stream(workers);
  CanonicalReducer reducer(*g_world, kElements, 2, DType::f32, stream);
  for (int round = 0; round < 2; ++round) {
    Tensor mine = gradient(group_of(round, g_world->rank(), g_world->size()));
    reducer.fold(mine);
  }
  Tensor total(DType::f32, {kElements});
  reducer.gather(total);
  Tensor want = gradient(0);
  for (int group = 1; group < groups; ++group) {
    const Tensor part = gradient(group);
    for (std::int64_t i = 0; i < kElements; ++i) want.as<float>()[i] += part.as<float>()[i];
  }
  EXPECT_EQ(std::memcmp(total.as<float>(), want.as<float>(), static_cast<std::size_t>(want.bytes())), 0);
}

// Becomes `mpirun -n N PROGRAM REST`, with N what stands behind `ranks`. Ranks may outnumber cores, and root may run
// them (containers).
int start_ranks(char** argv, char** ranks) {
  const std::pair<const char*, const char*> settings[] = {
      {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
      {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
      {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
      {"OMPI_MCA_hwloc_base_binding_policy", "none"},
      {"OMPI_MCA_mpi_yield_when_idle", "1"},
      {"LSAN_OPTIONS", "suppressions=" SHOESTRING_SOURCE_DIR "/tests/support/openmpi.supp:print_suppressions=0"}};
  for (const auto& [name, value] : settings) setenv(name, value, 1);
  std::string launcher = "mpirun";
  std::string count_flag = "-n";
  std::vector<char*> command = {launcher.data(), count_flag.data(), ranks[1]};
  command.insert(command.end(), argv, ranks);
  for (char** rest = ranks + 2; *rest != nullptr; ++rest) command.push_back(*rest);
  command.push_back(nullptr);
  execvp(command[0], command.data());
  fmt::print(stderr, "mpirun could not be started: {}\n", std::strerror(errno));
  return 74;
}

// A rank that never comes, before anybody watches: whoever waits for it leaves when asked, and says for whom it waited.
TEST(MpiWorld, AWaitHearsARequestToLeave) {
  const std::unique_ptr<Communicator> part = g_world->split(0, g_world->rank(), "part");
  if (g_world->rank() == 0 && g_world->size() > 1) {
    double value = 0;
    g_asked = true;
    try {
      part->recv(view_of(&value, DType::f64, {1}), 1);
      ADD_FAILURE() << "nobody sent it";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::preempted);
      EXPECT_NE(std::string(error.what()).find("rank 0 left as asked while it waited for rank 1"), std::string::npos)
          << error.what();
    }
    g_asked = false;
  }
  g_world->barrier();
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  const bool launched = !shoestring::mpi_launch_sign().empty();
  char** ranks = std::find(argv, argv + argc, std::string_view("--ranks"));
  if (!launched && ranks + 1 < argv + argc) return shoestring::start_ranks(argv, ranks);
  ::testing::InitGoogleTest(&argc, argv);
  if (::testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  if (!launched) {
    fmt::print(stderr, "start this with mpirun, or with --ranks N\n");
    return 64;
  }
  // Pieces of 64 KiB, so that the large message of the suite travels in several.
  const auto world =
      shoestring::mpi_world(64 * 1024, {.asked = [] { return shoestring::g_asked.load(); }, .patience_seconds = 0.05});
  world->set_timeout(60);
  shoestring::g_world = world.get();
  if (argc == 3 && std::strcmp(argv[1], "--abort") == 0) {
    if (world->rank() == world->size() - 1) {
      world->abort(static_cast<shoestring::ExitCode>(std::stoi(argv[2])), "as asked");
    }
    world->barrier();
    return 0;
  }
  if (world->rank() > 0) {  // one report is enough; failures of the others print themselves
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (std::getenv("SHOESTRING_TEST_ALL_RANKS") == nullptr) {
      class Failures : public ::testing::EmptyTestEventListener {
        void OnTestPartResult(const ::testing::TestPartResult& result) override {
          if (result.failed()) fmt::print(stderr, "rank {}: {}\n", shoestring::g_world->rank(), result.message());
        }
      };
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new Failures);
    }
  }
  return RUN_ALL_TESTS();
}
