// The JSON form of what a ledger holds: one pair of functions per struct, so that writer and reader cannot drift apart.
// Not for users of the ledger.
#pragma once

#include "core/budget/ledger.h"
#include "kernels/base/json.h"

namespace shoestring::ledger_lines {

Json write(const AttemptStart& start);
Json write(const AttemptProgress& progress);
Json write(const CheckpointCommit& commit);
Json write(const EvaluationResult& result);
Json write(const SuiteResult& result);
Json write(const HorizonDecision& decision);
Json write(const PipelineUse& use);
Json write(const DataReading& reading);
Json write(const CategorySeconds& seconds);

// Each throws Error(bad_data) when the object does not fit. Texts are cut to a length that no writer of ours reaches.
AttemptStart read_start(const Json& object);
AttemptProgress read_progress(const Json& object);
CheckpointCommit read_commit(const Json& object);
std::map<std::string, std::string> read_variants(const Json& object);
EvaluationResult read_evaluation(const Json& object);
SuiteResult read_suites(const Json& object);
HorizonDecision read_decision(const Json& object);
PipelineUse read_pipeline(const Json& object);
DataReading read_data(const Json& object);
std::vector<double> read_violations(const Json& object);

}  // namespace shoestring::ledger_lines
