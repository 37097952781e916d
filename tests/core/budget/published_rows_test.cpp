#include "core/budget/published_rows.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr std::string_view kHeading =
    "source,model,layers,hidden,heads,kv_heads,ffn,vocab,seq_len,gpus,gpu,precision,sharding,"
    "activation_checkpointing,cpu_offload,micro_batch,grad_accum,params,tokens_per_second_per_gpu";

std::string mistake_of(const std::string& text) {
  testing::TemporaryFolder folder;
  testing::write_text(folder / "x.csv", text);
  try {
    read_published_rows(folder / "x.csv");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    return error.what();
  }
  return "no mistake";
}

PublishedRow row_of(std::string_view cells, std::string_view further = "") {
  testing::TemporaryFolder folder;
  testing::write_text(folder / "x.csv", std::string(kHeading) + std::string(further) + "\r\n" + std::string(cells));
  return read_published_rows(folder / "x.csv").at(0);
}

TEST(PublishedRows, ReadWhatARowSays) {
  const PublishedRow row = row_of(
      "\"a, "
      "\"\"b\"\"\",llama,32,4096,32,8,14336,128256,8192,64,h100-80gb,fp8,zero1_tp2_pp4_vp2,selective,false,1,16,8.03e9,"
      "1234.5");
  EXPECT_EQ(row.source, "a, \"b\"");
  EXPECT_EQ(row.hardware, "h100");
  EXPECT_EQ(row.line, 2);
  EXPECT_EQ(row.stack->name, "fused");
  const PlanLayout& layout = row.question.layout;
  EXPECT_EQ(layout.data(), 8);
  EXPECT_EQ(layout.schedule, ScheduleName::interleaved);
  EXPECT_EQ(layout.recompute, Recompute::selective);
  EXPECT_EQ(layout.sharding, Sharding::optimizer);
  EXPECT_TRUE(row.question.model.gated);
  EXPECT_FALSE(row.question.model.config.tie_embeddings);
  EXPECT_DOUBLE_EQ(row.tokens_per_device_second, 1234.5);
}

TEST(PublishedRows, TheCountOfParametersChoosesTheModel) {
  const PublishedRow mpt =
      row_of("llm-foundry,mpt,24,2048,16,16,8192,50368,2048,8,a100-40gb,bf16,full_shard,true,false,8,8,1315950592,1");
  EXPECT_EQ(mpt.hardware, "a100_40");
  EXPECT_EQ(mpt.stack->name, "eager");
  EXPECT_FALSE(mpt.question.model.gated);
  EXPECT_TRUE(mpt.question.model.config.tie_embeddings);
  EXPECT_TRUE(mpt.question.model.learned_positions);
  EXPECT_EQ(mpt.question.layout.sharding, Sharding::full);
}

// Qwen3 30B: heads of 128 where the hidden size shared out is 64; its software launches what graphs elsewhere replay.
TEST(PublishedRows, AMixtureHasItsHeadsAndItsSoftware) {
  const std::string cells =
      "docs,qwen3,48,2048,32,4,6144,151936,4096,16,{},fp8,zero1_ep8,false,false,1,32,30530000000,1,128,8,768";
  const auto on = [&](std::string_view gpu) {
    std::string line = cells;
    return row_of(line.replace(line.find("{}"), 2, gpu), ",experts,experts_per_token,expert_ffn");
  };
  EXPECT_EQ(on("h100-80gb").question.model.config.qk_dim, 128);
  EXPECT_EQ(on("h100-80gb").stack->name, "mixture_launches");
  EXPECT_EQ(on("gb200").stack->name, "mixture_graphs");
}

TEST(PublishedRows, MistakesSayWhereAndWhat) {
  std::string heading(kHeading);
  heading.replace(heading.find(",vocab"), 6, ",vocap,gpus");
  const std::string wrong_heading = mistake_of(heading + "\n");
  for (const char* expected : {"x.csv:1", "unknown column 'vocap'; did you mean 'vocab'?", "column 'vocab' is missing",
                               "column 'gpus' is given twice"}) {
    EXPECT_NE(wrong_heading.find(expected), std::string::npos) << expected << "\nnot in\n" << wrong_heading;
  }
  const std::string wrong_cells =
      mistake_of(std::string(kHeading) +
                 "\na,b,0,x,32,8,1,1,1,8,h100,int3,sharp,maybe,true,1,1,1e99,1\na,b\n"
                 "a,b,32,4096,32,8,14336,128256,8192,8,h100,fp8,zero1_tp3,false,false,1,16,8e9,1\n");
  for (const char* expected : {"x.csv:2: layers = '0'", "x.csv:2: hidden = 'x'", "x.csv:2: precision = 'int3' must be",
                               "x.csv:2: sharding = 'sharp'", "x.csv:2: activation_checkpointing = 'maybe'",
                               "x.csv:2: cpu_offload = 'true'", "x.csv:2: params = '1e99'",
                               "x.csv:3: has 2 cells, the heading 19", "x.csv:4: the layout cannot be: tensor 3"}) {
    EXPECT_NE(wrong_cells.find(expected), std::string::npos) << expected << "\nnot in\n" << wrong_cells;
  }
  EXPECT_NE(mistake_of("").find("holds no rows"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
