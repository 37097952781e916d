#include "core/model/objective.h"

#include "kernels/cross_entropy.h"

namespace shoestring {
namespace {

void add_cross_entropy(const ObjectiveRows& rows, const ConstTensorView& weights, double scale, const LossTotals& sum,
                       Stream& stream) {
  cross_entropy({.loss = rows.losses,
                 .lse = {},
                 .loss_sum = sum.loss,
                 .count = sum.tokens,
                 .dlogits = rows.dlogits,
                 .logits = rows.logits,
                 .targets = rows.targets,
                 .scale = scale,
                 .stream = stream,
                 .weights = weights,
                 .weight_sum = sum.weight});
}

}  // namespace

void NextToken::rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const {
  add_cross_entropy(rows, {}, weight(rows.depth), sum, stream);
}

void Masked::rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const {
  const std::int64_t count = rows.targets.shape[0];
  const ConstTensorView weights = rows.batch.column(kWeightColumn).slice(0, rows.begin, count).reshaped({count});
  add_cross_entropy(rows, weights, weight(rows.depth), sum, stream);
}

}  // namespace shoestring
