// Data and pipeline parallelism under mpirun: the bits of one process, on any number of ranks, through restarts.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/budget/hardware.h"
#include "core/training/checkpoint.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::Ended;
using testing::Workplace;

class Mpirun : public ::testing::Test {
 protected:
  static const Workplace& place() {
    static const Workplace workplace;
    return workplace;
  }
  static void SetUpTestSuite() {
    for (const char* name :
         {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"}) {
      setenv(name, "1", 1);
    }
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
  }
  static std::string ranks(int count) { return "mpirun -n " + std::to_string(count); }
};

class MpirunFormats : public Mpirun, public ::testing::WithParamInterface<const char*> {};

TEST_P(MpirunFormats, GivesTheBitsOfOneProcess) {
  const std::string policy = GetParam();
  const std::string options = "--precision.policy=" + policy;
  const auto name = [&](int count) { return policy + "_" + std::to_string(count); };
  ASSERT_EQ(place().run(place().train(name(1), options)).exit_code, 0);
  for (const int count : {2, 4}) {
    const Ended ended = place().run(place().train(name(count), options), ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_EQ(place().result(name(count)), place().result(name(1))) << count << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MpirunFormats, ::testing::Values("fp32", "bf16"));

// Beside each other they would write one folder and say everything several times.
TEST_F(Mpirun, TheWorkOfOneProcessIsDoneByOne) {
  ASSERT_EQ(place().run(place().train("one_of_three")).exit_code, 0);
  const Ended exported = place().run("export runs/one_of_three --out exported", ranks(3));
  EXPECT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_EQ(exported.output.find("MB of weights"), exported.output.rfind("MB of weights")) << exported.output;
  EXPECT_NE(exported.output.find("the first process of this launch does it"), std::string::npos) << exported.output;
  EXPECT_EQ(place().run("inspect exported").exit_code, 0);
  for (const std::string& command : {std::string("plan small.recipe"), std::string("bench --help")}) {
    const Ended once = place().run(command, ranks(3));
    EXPECT_EQ(once.exit_code, 0) << once.output;
    const std::string word = command.starts_with("plan") ? "parameters " : "usage: ";
    EXPECT_NE(once.output.find(word), std::string::npos) << once.output;
    EXPECT_EQ(once.output.find(word), once.output.rfind(word)) << once.output;
  }
  const Ended each = place().run("inspect exported", ranks(2) + " env -u OMPI_COMM_WORLD_RANK -u PMIX_RANK");
  EXPECT_NE(each.output.find("parameters"), each.output.rfind("parameters")) << "asked for: " << each.output;
}

// Two ranks measure what one of them has; plans for two devices of that kind need its links, and steps on two ranks
// correct them.
TEST_F(Mpirun, MeasuresItsMachineForPlans) {
  std::filesystem::create_directories(place().path() / "hardware");
  const std::string file = (place().path() / "hardware" / "here.hardware").string();
  const Ended measured = place().run("bench --threads 1 --calibrate " + file, ranks(2));
  ASSERT_EQ(measured.exit_code, 0) << measured.output;
  const Hardware here = read_hardware(file);
  EXPECT_EQ(here.devices_per_node, 2);
  EXPECT_GT(here.peer_bytes_per_second, 0);
  EXPECT_GT(here.memory_bytes_per_second, 0);
  EXPECT_GT(here.achievable_flops[RateFormat::fp8], 0);
  const Ended plan = place().run(
      "plan small.recipe --budget.hardware=here --run.name=here --measure 0.5 --devices 2 --layout pipeline=1",
      ranks(2));
  ASSERT_EQ(plan.exit_code, 0) << plan.output;
  EXPECT_NE(plan.output.find("as its steps on these ranks came out beside their estimate"), std::string::npos)
      << plan.output;
}

// Ten steps on two ranks, then on to the end on one and on four: no sample is repeated or skipped, so the bits are
// those of a run that never moved.
TEST_F(Mpirun, ResumesOnAnotherNumberOfRanks) {
  const std::string constant = "--schedule.kind=constant ";
  ASSERT_EQ(place().run(place().train("whole", constant)).exit_code, 0);
  for (const int count : {1, 4}) {
    const std::string name = "moved_" + std::to_string(count);
    ASSERT_EQ(place().run(place().train(name, constant + "--phase.pretrain.steps=10"), ranks(2)).exit_code, 0);
    const Ended ended =
        place().run(place().train(name, constant + "--allow-recipe-change"), count == 1 ? std::string() : ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find("going on from step 10"), std::string::npos);
    EXPECT_EQ(place().result(name).at("weights"), place().result("whole").at("weights"));
    EXPECT_EQ(place().result(name).at("optimizer"), place().result("whole").at("optimizer"));
  }
}

// Steps of the whole layout are measured, one rank speaks, and the time of both is on the bill.
TEST_F(Mpirun, APlanIsMeasuredOnItsLayout) {
  const std::string options = "--run.name=planned --model.layers=4 --parallel.pipeline=2 --measure 0.2";
  const Ended plan = place().run("plan small.recipe " + options, ranks(2));
  ASSERT_EQ(plan.exit_code, 0) << plan.output;
  const std::size_t said = plan.output.find("on 2 ranks");
  EXPECT_NE(said, std::string::npos) << plan.output;
  EXPECT_EQ(plan.output.find("on 2 ranks", said + 1), std::string::npos) << plan.output;
  EXPECT_NE(plan.output.find("bubble"), std::string::npos) << plan.output;
  const Ended report = place().run("report runs/planned");
  EXPECT_EQ(report.exit_code, 0);
  EXPECT_NE(report.output.find("measured, not begun"), std::string::npos) << report.output;
}

// Ten steps through a pipeline, whose ranks write the checkpoint side by side, then on to the end as one process; and
// the other way round, seen in the metrics.
TEST_F(Mpirun, APipelineGivesTheBitsOfOneProcess) {
  const std::string constant = "--schedule.kind=constant --model.layers=4 --allow-recipe-change ";
  const std::string first = constant + "--phase.pretrain.steps=10 ";
  ASSERT_EQ(place().run(place().train("deep", constant)).exit_code, 0);
  for (const auto& [count, pipeline] :
       {std::pair(2, "2 --parallel.schedule=1f1b --parallel.stages=measured"), std::pair(4, "2")}) {
    const std::string name = "pipeline_" + std::to_string(count);
    const std::string piped = std::string("--parallel.pipeline=") + pipeline;
    Ended ended = place().run(place().train(name, first + piped), ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_EQ(ended.output.find("pipeline cut by measured time: ") != std::string::npos, count == 2) << ended.output;
    ended = place().run(place().train(name, constant));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find("going on from step 10"), std::string::npos);
    EXPECT_EQ(place().result(name).at("weights"), place().result("deep").at("weights"));
    EXPECT_EQ(place().result(name).at("optimizer"), place().result("deep").at("optimizer"));

    const std::string back = "back_" + std::to_string(count);
    ASSERT_EQ(place().run(place().train(back, first)).exit_code, 0);
    ended = place().run(place().train(back, constant + piped), ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_EQ(place().run(place().train(back, constant)).exit_code, 0);  // done already; reads what was written
  }
}

/// A mixture of experts in the place of the recipe's model.
constexpr const char* kExperts =
    "--schedule.kind=constant --allow-recipe-change --model.architecture=deepseek_v3 --model.kv_heads=0 "
    "--model.kv_lora_rank=32 --model.qk_nope_head_dim=16 --model.qk_rope_head_dim=16 --model.v_head_dim=32 "
    "--model.dense_layers=1 --model.experts=8 --model.experts_per_token=2 --model.shared_experts=1 "
    "--model.expert_feed_forward=32 --model.bias_speed=0.01 --model.balance_loss=0.01 ";

// Ranks that share experts, alone and on a pipeline, or the optimizer's state, evaluation included; then one process
// goes on from what they wrote.
TEST_F(Mpirun, SharedExpertsGiveTheBitsOfOneProcess) {
  ASSERT_EQ(place().run(place().train("experts", kExperts)).exit_code, 0);
  for (const auto& [count, axes] :
       {std::pair(2, "--parallel.expert=2 "), std::pair(4, "--parallel.expert=2 --parallel.pipeline=2 "),
        std::pair(4, "--parallel.expert=4 "), std::pair(2, "--parallel.shard_optimizer=yes "),
        std::pair(4, "--parallel.expert=2 --parallel.shard_optimizer=yes ")}) {
    const std::string name = std::string("experts_") + std::to_string(std::string(axes).size() + count);
    Ended ended =
        place().run(place().train(name, std::string(kExperts) + axes + "--phase.pretrain.steps=10"), ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    ended = place().run(place().train(name, kExperts));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find("going on from step 10"), std::string::npos) << ended.output;
    EXPECT_EQ(place().result(name).at("weights"), place().result("experts").at("weights")) << axes;
    EXPECT_EQ(place().result(name).at("optimizer"), place().result("experts").at("optimizer")) << axes;
  }
}

// Layers of a mixture's model are of unlike kinds, and multi-token prediction is at its end: a pipeline cut by what
// they take is cut otherwise on every start, and shows in no bit.
TEST_F(Mpirun, AMixtureCutByMeasuredTimeGivesTheBitsOfOneProcess) {
  const std::string deep = std::string(kExperts) + "--model.layers=5 --model.mtp_layers=1 --model.mtp_weight=0.3 ";
  const std::string cut = "--parallel.pipeline=2 --parallel.stages=measured --phase.pretrain.steps=10 ";
  ASSERT_EQ(place().run(place().train("mixture", deep)).exit_code, 0);
  for (const auto& [count, axes] : {std::pair(2, "--parallel.schedule=1f1b "), std::pair(4, "--parallel.expert=2 ")}) {
    const std::string name = "mixture_" + std::to_string(count);
    Ended ended = place().run(place().train(name, deep + cut + axes), ranks(count));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find("pipeline cut by measured time: "), std::string::npos) << ended.output;
    ended = place().run(place().train(name, deep));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find("going on from step 10"), std::string::npos) << ended.output;
    EXPECT_EQ(place().result(name).at("weights"), place().result("mixture").at("weights")) << axes;
    EXPECT_EQ(place().result(name).at("optimizer"), place().result("mixture").at("optimizer")) << axes;
  }
}

// One of two ranks is killed once a checkpoint is there; four ranks go on from it in another layout, and one at the
// end.
TEST_F(Mpirun, ARunOfSharedExpertsIsKilledAndMovesOn) {
  const std::string long_run = std::string(kExperts) + "--phase.pretrain.steps=100000 ";
  testing::write_text(
      place().path() / "killed.sh",
      "\"$@\" & child=$!\n"
      "if [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then\n"
      "  until ls runs/moved/checkpoints/step_* >/dev/null 2>&1 || ! kill -0 $child; do sleep 0.02; done\n"
      "  kill -9 $child\n"
      "fi\n"
      "wait $child\n");
  const Ended killed =
      place().run(place().train("moved", long_run + "--parallel.expert=2"), ranks(2) + " sh killed.sh");
  EXPECT_NE(killed.exit_code, 0) << killed.output;
  const CheckpointStore store(place().run_folder("moved") / "checkpoints");
  const auto step = step_of(store.newest([](const std::string&) {}).value());
  const auto until = [&](std::int64_t more) {
    return std::string(kExperts) + "--phase.pretrain.steps=" + std::to_string(step + more) + " ";
  };
  const Ended moved =
      place().run(place().train("moved", until(4) + "--parallel.expert=2 --parallel.pipeline=2"), ranks(4));
  ASSERT_EQ(moved.exit_code, 0) << moved.output;
  EXPECT_NE(moved.output.find("going on from step " + std::to_string(step)), std::string::npos) << moved.output;
  ASSERT_EQ(place().run(place().train("moved", until(8))).exit_code, 0);
  ASSERT_EQ(place().run(place().train("stayed", until(8))).exit_code, 0);
  EXPECT_EQ(place().result("moved").at("weights"), place().result("stayed").at("weights"));
  EXPECT_EQ(place().result("moved").at("optimizer"), place().result("stayed").at("optimizer"));
}

TEST_F(Mpirun, ExpertsThatCannotBeSharedOutAreRefused) {
  const Ended ended = place().run(place().train("unshared", std::string(kExperts) + "--parallel.expert=4"), ranks(2));
  EXPECT_EQ(ended.exit_code, 78) << ended.output;
  EXPECT_NE(ended.output.find("pipeline 1 x data 2 (expert 1 or 2)"), std::string::npos) << ended.output;
}

TEST_F(Mpirun, PhasesFollowEachOther) {
  const std::string second = "[phase.second]\nsequence = 32\nmicro_batch = 2\nglobal_batch = 8\nsteps = 4\n";
  testing::write_text(place().path() / "phases.recipe", testing::read_text(place().path() / "small.recipe") + second);
  ASSERT_EQ(place().run("train phases.recipe --run.name=phases_1").exit_code, 0);
  const Ended ended = place().run("train phases.recipe --run.name=phases_2", ranks(2));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_NE(ended.output.find("step_00000024"), std::string::npos) << ended.output;
  EXPECT_EQ(place().result("phases_2"), place().result("phases_1"));
}

TEST_F(Mpirun, RanksThatCannotShareTheGroupsAreRefused) {
  const Ended ended = place().run(place().train("uneven"), ranks(3));
  EXPECT_EQ(ended.exit_code, 78) << ended.output;
  EXPECT_NE(ended.output.find("reduction groups"), std::string::npos) << ended.output;
}

TEST_F(Mpirun, OneLedgerCountsAllRanks) {
  ASSERT_EQ(place().run(place().train("ledger"), ranks(2)).exit_code, 0);
  const Ended report = place().run("report runs/ledger --json");
  EXPECT_NE(report.output.find("\"ranks\": 2"), std::string::npos) << report.output;
}

// The rank that keeps the account is started late: the other one has waited for it at the run's expense, and the cap
// holds for both.
TEST_F(Mpirun, ALateFirstRankKeepsTheCap) {
  constexpr double kLate = 3;
  constexpr double kCap = 24;  // GPU-seconds
  const std::string train = place().train("waited", fmt::format("--schedule.horizon=budget --evaluation.tokens=1000 "
                                                                "--checkpoint.every_steps=0 --budget.gpu_hours={}s",
                                                                kCap));
  const Ended ended = place().run(train + " : -n 1 '" + SHOESTRING_PROGRAM + "' " + train,
                                  ranks(1) + fmt::format(" sh -c 'sleep {}; exec \"$0\" \"$@\"'", kLate));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  const auto report = nlohmann::json::parse(testing::read_text(place().run_folder("waited") / "report.json"));
  EXPECT_GT(3600 * report.at("categories").at("startup").get<double>(), kLate);
  EXPECT_LE(testing::hours_of_steps(report), kCap / 3600 + 2 * testing::slowest_step_hours(place(), "waited"));
}

// ---- Launches that are not what they should be: named before anything is spent.

TEST_F(Mpirun, TheFirstLinesSayWhatWasLaunched) {
  const Ended ended = place().run(
      place().train("first_lines",
                    "--model.layers=4 --parallel.pipeline=2 --phase.pretrain.steps=1 --schedule.warmup_steps=0"),
      ranks(2));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  for (const char* words : {"launch: 2 ranks on 1 host: ", "binding: rank 0 may use ", "1 thread a rank",
                            "layout: data 1 x pipeline 2, expert 1; schedule zb_v, stages of 1 1 1 1 layers"}) {
    EXPECT_NE(ended.output.find(words), std::string::npos) << words << " in: " << ended.output;
  }
}

// srun without a PMI that this MPI understands starts every task as a world of its own.
TEST_F(Mpirun, TasksThatKnowNothingOfEachOtherAreRefused) {
  const Ended ended = place().run(place().train("apart"), "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4");
  EXPECT_EQ(ended.exit_code, 66) << ended.output;
  EXPECT_NE(ended.output.find("srun started 4 tasks"), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("--mpi=pmix"), std::string::npos) << ended.output;
  EXPECT_FALSE(std::filesystem::exists(place().run_folder("apart")));
}

TEST_F(Mpirun, AnotherBuildOnARankIsNamed) {
  const std::filesystem::path other = std::filesystem::path(SHOESTRING_PROGRAM).parent_path() / "shoestring_other";
  std::filesystem::copy_file(SHOESTRING_PROGRAM, other, std::filesystem::copy_options::overwrite_existing);
  std::ofstream(other, std::ios::app | std::ios::binary) << "another";
  const Ended ended =
      place().run(place().train("builds") + " : -n 1 '" + other.string() + "' " + place().train("builds"), ranks(1));
  std::filesystem::remove(other);
  EXPECT_EQ(ended.exit_code, 66) << ended.output;
  EXPECT_NE(ended.output.find("rank 1 of 2 run another build of this program than rank 0 (host "), std::string::npos)
      << ended.output;
  EXPECT_FALSE(std::filesystem::exists(place().run_folder("builds")));
}

TEST_F(Mpirun, AnotherRecipeOnARankIsNamed) {
  const std::string other = std::string(" : -n 1 '") + SHOESTRING_PROGRAM + "' ";
  const Ended ended = place().run(
      place().train("recipes") + other + place().train("recipes", "--model.layers=3 --parallel.pipeline=2"), ranks(1));
  EXPECT_EQ(ended.exit_code, 78) << ended.output;
  EXPECT_NE(ended.output.find("rank 1 of 2 read another recipe than rank 0"), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("model.layers = 3, not 2"), std::string::npos) << ended.output;
}

// They may train together, at the price of bits that depend on which rank computed what: that is said, and how to have
// them equal.
TEST_F(Mpirun, UnlikeProcessorsAreNamed) {
  const std::string options = "--phase.pretrain.steps=1 --schedule.warmup_steps=0";
  const std::string other = std::string(" : -n 1 env SHOESTRING_MAX_ISA=portable '") + SHOESTRING_PROGRAM + "' ";
  const Ended ended =
      place().run(place().train("unlike", options) + other + place().train("unlike", options), ranks(1));
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_NE(ended.output.find("processors differ (rank 0 has: "), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("rank 1 has: portable"), std::string::npos) << ended.output;
}

TEST_F(Mpirun, RanksThatDoNotFitTheAxesHearWhichWould) {
  const Ended ended =
      place().run(place().train("misfit", "--model.layers=4 --parallel.pipeline=2 --parallel.data=2"), ranks(2));
  EXPECT_EQ(ended.exit_code, 78) << ended.output;
  EXPECT_NE(ended.output.find("pipeline 1 x data 2, pipeline 2 x data 1"), std::string::npos) << ended.output;
}

TEST_F(Mpirun, TheTraceOfARunShowsEveryRank) {
  const Ended ended = place().run(
      place().train("traced", "--model.layers=4 --parallel.pipeline=2 --phase.pretrain.steps=6 --run.trace=2"),
      ranks(2));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  const auto trace = nlohmann::json::parse(testing::read_text(place().run_folder("traced") / "trace.json"));
  std::map<int, int> actions;  // by rank
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X" && event.at("cat") == "forward") ++actions[event.at("tid").get<int>()];
  }
  // Two stages a rank and four micro-batches, in each of the three steps that a pipeline is measured in.
  EXPECT_EQ(actions, (std::map<int, int>{{0, 24}, {1, 24}})) << ended.output;
  const auto report = nlohmann::json::parse(testing::read_text(place().run_folder("traced") / "report.json"));
  EXPECT_EQ(report.at("pipeline").at("schedule"), "zb_v");
  EXPECT_EQ(report.at("pipeline").at("stages"), 4);
  EXPECT_GT(report.at("pipeline").at("simulated_bubble").get<double>(), 0);
}

// A run that would go on for long: something ends it.
class MpirunEnds : public Mpirun {
 protected:
  static constexpr const char* kLong = "--phase.pretrain.steps=1000000 ";
  static constexpr const char* kSavesNothing = "--checkpoint.every_steps=1000000 ";
  static constexpr const char* kPipeline = "--model.layers=4 --parallel.pipeline=2 ";

  /// Begins, and once a step is done calls `meanwhile` with the processes of both ranks; signals mpirun.
  static Ended begin(const std::string& name, const std::string& options, int signal,
                     const std::function<void(std::array<int, 2>)>& meanwhile) {
    std::array<int, 2> processes{};
    const Ended ended = place().interrupt(
        name, place().train(name, kLong + options), signal,
        [&] {
          testing::wait_for_step(place(), name);
          for (int rank : {0, 1}) {
            processes[static_cast<std::size_t>(rank)] = testing::process_of_rank(place(), name, rank);
          }
          meanwhile(processes);
        },
        ranks(2));
    for (const int process : processes) EXPECT_TRUE(testing::is_gone(process)) << process;
    return ended;
  }
  /// Five steps more than are saved: one more than the warm-up has, should nearly nothing have been trained.
  static void expect_resumes(const std::string& name, const std::string& options) {
    const std::string saved = place().result(name).at("checkpoint");
    const auto step = std::stoll(saved.substr(saved.find('_') + 1));
    EXPECT_GT(step, 0);
    const Ended ended = place().run(
        place().train(name, fmt::format("--phase.pretrain.steps={} --allow-recipe-change {}", step + 5, options)),
        ranks(2));
    EXPECT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_NE(ended.output.find(fmt::format("going on from step {}", step)), std::string::npos) << ended.output;
  }
};

// Nothing but its silence tells: the other rank waits in MPI. What rank 0 trained is saved.
TEST_F(MpirunEnds, AStoppedRankIsNamed) {
  const Ended ended = begin("stopped", std::string(kSavesNothing) + "--run.hang_after=5 ", 0,
                            [](std::array<int, 2> processes) { kill(processes[1], SIGSTOP); });
  EXPECT_EQ(ended.exit_code, 80) << ended.output;
  for (const char* words : {"rank 1 (host ", "has stopped", "it was at step ", "rank 0 (host ", "message "}) {
    EXPECT_NE(ended.output.find(words), std::string::npos) << words << " in: " << ended.output;
  }
  EXPECT_NE(ended.output.find("step_"), std::string::npos) << ended.output;
  expect_resumes("stopped", "");
}

// The ledger is rank 0's: it is the launcher's exit code that tells, and the next start charges what was lost.
TEST_F(MpirunEnds, AStoppedFirstRankIsNamed) {
  const Ended ended =
      begin("stopped_0", "--run.hang_after=5 --checkpoint.every_steps=1 ", 0, [](std::array<int, 2> processes) {
        testing::wait_for_checkpoint(place(), "stopped_0");
        kill(processes[0], SIGSTOP);
      });
  EXPECT_EQ(ended.exit_code, 80) << ended.output;
  EXPECT_NE(ended.output.find("rank 0 (host "), std::string::npos) << ended.output;
  expect_resumes("stopped_0", "");
}

TEST_F(MpirunEnds, AKilledRankEndsTheJob) {
  const Ended ended = begin("killed", "--checkpoint.every_steps=1 ", 0, [](std::array<int, 2> processes) {
    testing::wait_for_checkpoint(place(), "killed");
    kill(processes[1], SIGKILL);
  });
  EXPECT_EQ(ended.exit_code, 128 + SIGKILL) << ended.output;
  EXPECT_NE(ended.output.find("signal 9"), std::string::npos) << ended.output;
  expect_resumes("killed", "");
}

// Saved, 75, and the launcher passes it on: along the data axis, and in the middle of a pipeline's step, although only
// one rank was asked.
TEST_F(MpirunEnds, ARequestToLeaveIsObeyed) {
  for (const std::string options : {"", kPipeline}) {
    const std::string name = options.empty() ? "asked" : "asked_pipeline";
    const Ended ended = begin(name, kSavesNothing + options, SIGUSR2, [](std::array<int, 2>) {});
    EXPECT_EQ(ended.exit_code, 75) << ended.output;
    EXPECT_NE(ended.output.find("is saved, the same command goes on from there"), std::string::npos) << ended.output;
    expect_resumes(name, options);
  }
}

TEST_F(MpirunEnds, ARequestToOneRankIsObeyed) {
  const Ended ended = begin("asked_one", std::string(kSavesNothing) + kPipeline, 0,
                            [](std::array<int, 2> processes) { kill(processes[1], SIGUSR2); });
  EXPECT_EQ(ended.exit_code, 75) << ended.output;
  expect_resumes("asked_one", kPipeline);
}

}  // namespace
}  // namespace shoestring
