// The JSON form of what a ledger holds: one pair of functions per struct, so that writer and reader cannot drift apart.
// Not for users of the ledger.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/budget/ledger.h"

namespace shoestring::ledger_lines {

nlohmann::json write(const AttemptStart& start);
nlohmann::json write(const AttemptProgress& progress);
nlohmann::json write(const CheckpointCommit& commit);
nlohmann::json write(const EvaluationResult& result);
nlohmann::json write(const HorizonDecision& decision);
nlohmann::json write(const CategorySeconds& seconds);

// Each throws a std::exception when the object does not fit.
AttemptStart read_start(const nlohmann::json& object);
AttemptProgress read_progress(const nlohmann::json& object);
CheckpointCommit read_commit(const nlohmann::json& object);
EvaluationResult read_evaluation(const nlohmann::json& object);
HorizonDecision read_decision(const nlohmann::json& object);

}  // namespace shoestring::ledger_lines
