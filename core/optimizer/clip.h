// The global gradient norm and the factor that clips it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"
#include "core/optimizer/shards.h"
#include "kernels/base/device.h"
#include "parallel/mesh.h"

namespace shoestring {

/// The norm of the mean gradient of the whole model, with the same bits under every layout.
///
/// The tensors of a checkpoint, in the order of the model, are cut into pieces of at most kPieceElements. The squares
/// of a piece are summed by one rank, in the one order of sum_of_squares; the sums, each known to one rank and zero on
/// all others, are exchanged exactly; every rank adds them in order. A piece is what ownership is about: which rank
/// sums it makes no difference to the bits, as long as it holds its summed gradient.
class GradientNorm {
 public:
  static constexpr std::int64_t kPieceElements = shoestring::kPieceElements;

  /// Of `model`, which must outlive it and may be a rank's stages and experts. Ranks that hold the same share its
  /// pieces: those of a stage along the data axis, but for experts along their replicas. Where each has its own sum
  /// only, `shards` says which.
  GradientNorm(const Transformer& model, const MeshShape& shape, const MeshCoordinates& at,
               const ParameterShards* shards = nullptr);

  /// Sums this rank's pieces: what it returns is there when the stream has been waited for, and is to be summed over
  /// all ranks of the model before `finish`.
  std::span<double> begin(Stream& stream);
  /// Gradients are summed over tokens; `scale` is 1 / trained tokens. NaN or infinity comes through.
  double finish(double scale) const;
  /// Both, and what is between them; collective over `world`, all ranks of the model.
  double operator()(Communicator& world, double scale, Stream& stream);

 private:
  /// A part of a parameter's gradient that this rank sums.
  struct Piece {
    const Parameter* parameter;
    std::int64_t begin;     // in its flat gradient
    std::int64_t elements;  // at most kPieceElements
    std::size_t number;     // in the whole model
  };
  std::vector<Piece> own_;
  std::span<double> squares() const { return {static_cast<double*>(squares_.data()), count_}; }

  std::size_t count_ = 0;  // of the whole model
  Tensor there_;           // on a device: sums of squares of all pieces, and room for parts of one
  Storage squares_;        // the sums, here
};

/// What the gradient is multiplied by so that its norm is at most `limit`; 1 where limit is 0 or infinite (off).
double clip_factor(double norm, double limit);

}  // namespace shoestring
