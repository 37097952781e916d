// What the files beside a ledger tell that it does not: an old copy of it was put back, or lines of it are gone, and
// the bill lacks what they charged.
#pragma once

#include <cstdint>
#include <string>

#include "core/budget/ledger_history.h"
#include "core/budget/run_curve.h"

namespace shoestring {

/// A sentence where the metrics tell of more GPU-hours than the ledger, or where `saved_step` (of the newest
/// checkpoint; -1: not looked at) is beyond the last step that either tells of; empty where they agree, and while an
/// attempt is running, whose next line is not due yet.
std::string untold_bill(const LedgerHistory& history, const Curve& metrics, std::int64_t saved_step = -1);

/// What the ledger notes it under.
inline constexpr const char* kBillNote = "bill";

}  // namespace shoestring
