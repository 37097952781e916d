// Open weights as the beginning of a run: every weight of a model, found in a folder, then read into the masters.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "core/training/import_rows.h"

namespace shoestring {

/// What is read into which weights, in the order in which it lies in the files.
struct ImportPlan {
  struct Piece {
    RowSource source;
    Parameter* parameter = nullptr;
    std::int64_t begin = 0;  ///< row of the parameter
  };
  std::vector<Piece> pieces;
  std::vector<std::string>
      passed_over;  ///< of the folder: tables, and multi-token prediction where there is to be none
};

/// Finds all weights of `model` but those of adapters, which needs no memory yet. Throws Error(bad_data) for one that
/// is missing or has another shape, for a tensor that the model has no place for (its output would not be that of the
/// source), and for a copy (a tied head, multi-token prediction's embedding) that is not the same numbers.
ImportPlan plan_import(const ImportFolder& folder, const Transformer& model);

/// Is told after each weight, or file, how much of all has been read; may be empty.
using ImportProgress = std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)>;

/// Reads them into the masters, which must have memory: little is held besides.
void import_weights(const ImportPlan& plan, const ImportProgress& progress = nullptr);

/// "F32 30, BF16 272": formats and how many weights have each.
std::string formats_of(const ImportPlan& plan);

}  // namespace shoestring
