// The ledger of a run and all that a report makes of it.
#include <cmath>

#include "core/budget/ledger_history.h"
#include "core/budget/report.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes,
          [&] {
            const LedgerHistory history = read_ledger_text(text_of(bytes), false);
            decisions_until(history, 100);
            if (history.attempts.empty()) return;  // the same report whatever was passed over
            if (!(history.charged_gpu_seconds() >= 0)) contradiction("a run is charged less than nothing");
            const Report report = make_report(history);
            report_text(report);
            report_json(report);
            if (bytes.size() % 8 == 0) report_html(report);  // takes longer than all else together
          },
          {.memory_per_byte = 4096});  // a line of some 70 bytes may begin an attempt
}

}  // namespace shoestring::fuzz
