// How an op chooses its implementation: one visible table, in order of preference, reference last.
//
//   constexpr std::array kVariants = std::to_array<Variant<RmsNormArgs>>({
//       {"avx512", avx512::refuses, avx512::forward},
//       {"reference", never_refuses<RmsNormArgs>, reference::forward},
//   });
//   void rms_norm_forward(const RmsNormArgs& args) { choose("rms_norm_forward", kVariants, args).run(args); }
//
// A row says why it declines; when all decline, the error lists every reason. The reference is correct and slow: it is
// taken only where nothing else fits and the run allows it (`allow_reference`), never silently. The first choice of
// each (op, variant) is reported once to the observer: the log and the ledger.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace shoestring {

/// One implementation of an op.
template <class Args>
struct Variant {
  std::string_view name;
  std::string (*refuses)(const Args&);  ///< empty when it can run these arguments, otherwise the reason
  void (*run)(const Args&);
};

template <class Args>
std::string never_refuses(const Args&) {
  return {};
}

/// Called once for each (op, variant) on first use, from the choosing thread, one call at a time.
using VariantObserver = std::function<void(std::string_view op, std::string_view variant)>;
void observe_variants(VariantObserver observer);

/// Whether an op may fall back to its reference row; true until a run says otherwise.
void allow_reference(bool allowed);

/// Pins `op` to one of its variants by name for this process (recipe section [kernels], tests, benchmarks); an empty
/// name frees it.
void pin_variant(std::string_view op, std::string_view variant);

namespace variant_detail {
template <class Args>
void do_nothing(const Args&) {}
/// The row of every op in a dry run.
template <class Args>
inline constexpr Variant<Args> kDry{"dry", never_refuses<Args>, do_nothing<Args>};

std::string pinned(std::string_view op);
void chosen(std::string_view op, std::string_view variant);
bool reference_allowed();
[[noreturn]] void none_fits(std::string_view op, const std::string& reasons);
}  // namespace variant_detail

/// The first row that does not refuse; in a dry run, one that does nothing.
template <class Args>
const Variant<Args>& choose(std::string_view op, std::span<const Variant<Args>> rows, const Args& args) {
  if constexpr (requires { args.stream.dry(); }) {
    if (args.stream.dry()) return variant_detail::kDry<Args>;
  }
  const std::string pin = variant_detail::pinned(op);
  std::string reasons;
  for (const Variant<Args>& row : rows) {
    std::string reason;
    if (!pin.empty() && row.name != pin) {
      reason = "the recipe pins " + pin;
    } else if (row.name == "reference" && pin.empty() && rows.size() > 1 && !variant_detail::reference_allowed()) {
      reason = "correct but slow; set kernels.allow_reference = yes to use it";
    } else {
      reason = row.refuses(args);
    }
    if (reason.empty()) {
      variant_detail::chosen(op, row.name);
      return row;
    }
    reasons.append("\n  ").append(row.name).append(": ").append(reason);
  }
  variant_detail::none_fits(op, reasons);
}

template <class Args, std::size_t count>
const Variant<Args>& choose(std::string_view op, const std::array<Variant<Args>, count>& rows, const Args& args) {
  return choose(op, std::span<const Variant<Args>>(rows), args);
}

}  // namespace shoestring
