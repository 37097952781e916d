// Published throughput as a table: one line per job, what it trained, on what, how, and how fast it went. What the
// planner is held against (`shoestring bench plan FILE.csv`).
//
// Columns, in any order, all needed:
//   source model layers hidden heads kv_heads ffn vocab seq_len gpus gpu precision sharding activation_checkpointing
//   cpu_offload micro_batch grad_accum params tokens_per_second_per_gpu
// and these where a job has them: tensor pipeline chunks context expert sequence_parallel schedule experts
// experts_per_token shared_experts expert_ffn dense_layers stack. `sharding` may also say "tp8_pp4" and the like.
// What the columns leave open (two or three matrices in the feed-forward, a tied head, a table of positions, heads that
// are as wide as the hidden size shared out or 128) is read off `params`: of the possible models the one that has the
// nearest count.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/budget/step_cost.h"

namespace shoestring {

struct PublishedRow {
  int line = 0;
  std::string source;
  std::string name;      ///< of the model
  std::string hardware;  ///< the stem of its file
  const Stack* stack = nullptr;
  StepQuestion question;
  double tokens_per_device_second = 0;  ///< measured
};

/// Throws Error(bad_data) that lists every mistake with its line and column name: columns that are missing, unknown or
/// given twice, numbers that are none, words that are not known, layouts that cannot be.
std::vector<PublishedRow> read_published_rows(const std::filesystem::path& file);

}  // namespace shoestring
