#include "core/budget/scaling_law.h"

#include <cmath>
#include <string>

#include "core/recipe/scan.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

// arXiv 2502.05172, equation 6 and table 3.
double joint_moe(double active, double tokens, double expansion) {
  constexpr double kStart = 2.0732;
  constexpr double kMost = 290.4521;
  const double experts = 1 / (1 / (expansion - 1 + 1 / (1 / kStart - 1 / kMost)) + 1 / kMost);
  const double log_experts = std::log(experts);
  return 35.91 * std::pow(experts, -0.2285) * std::pow(active, -0.1889 + 0.0098 * log_experts) +
         35.98 * std::pow(experts, 0.5529) * std::pow(tokens, -0.1775 - 0.0259 * log_experts) + 1.3637;
}

double chinchilla(double active, double tokens, double) {
  return 1.69 + 406.4 * std::pow(active, -0.34) + 410.7 * std::pow(tokens, -0.28);
}

double chinchilla_refit(double active, double tokens, double) {
  return 1.8172 + 482.01 * std::pow(active, -0.3478) + 2085.43 * std::pow(tokens, -0.3658);
}

constexpr ScalingLaw kLaws[] = {
    {"joint_moe", "Ludziejewski et al., arXiv 2502.05172, table 3: up to 2.7B active parameters, 32 experts", true,
     joint_moe},
    {"chinchilla", "Hoffmann et al., arXiv 2203.15556, approach 3: 70M to 16B parameters", false, chinchilla},
    {"chinchilla_refit", "Besiroglu et al., arXiv 2404.10102: the same data, fitted anew", false, chinchilla_refit},
};

}  // namespace

std::span<const ScalingLaw> scaling_laws() { return kLaws; }

const ScalingLaw& scaling_law_named(std::string_view name) {
  std::string known;
  for (const ScalingLaw& law : kLaws) {
    if (law.name == name) return law;
    known += (known.empty() ? "" : ", ") + std::string(law.name);
  }
  fail(ExitCode::usage, "there is no scaling law {}; choose one of {}", quote_name(name), known);
}

double best_learning_rate(double flops) { return 0.3118 * std::pow(flops, -0.1250); }
double best_batch_tokens(double flops) { return 0.2920 * std::pow(flops, 0.3271); }

}  // namespace shoestring
