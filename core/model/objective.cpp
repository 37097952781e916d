#include "core/model/objective.h"

#include "kernels/cross_entropy.h"

namespace shoestring {

void NextToken::rows(const ObjectiveRows& rows, LossSum& sum, Stream& stream) const {
  cross_entropy({.loss = rows.losses,
                 .lse = {},
                 .loss_sum = view_of(&sum.loss, DType::f64, {1}),
                 .count = view_of(&sum.tokens, DType::i64, {1}),
                 .dlogits = rows.dlogits,
                 .logits = rows.logits,
                 .targets = rows.targets,
                 .scale = weight(rows.depth),
                 .stream = stream});
}

}  // namespace shoestring
