// The mesh: which rank sits where on the axes data, pipeline and expert.
//
// world = pipeline x data. The expert axis divides the data axis (as in DeepSeek-V3: 128-way data = 64-way expert x 2
// replicas). Neighbours on the expert axis have neighbouring ranks, since their all-to-all wants the fast links of one
// node; pipeline neighbours are `data` ranks apart.
//   rank = pipeline_index * data + data_index
//   data_index = replica_index * expert + expert_index
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace shoestring {

struct MeshShape {
  int data = 1;
  int pipeline = 1;
  int expert = 1;  ///< divides data

  int ranks() const { return data * pipeline; }
  int replicas() const { return data / expert; }
  /// Ranks that hold the model together, each a part that no other of them has.
  int ranks_of_model() const { return pipeline * expert; }
  bool operator==(const MeshShape&) const = default;
};

struct MeshCoordinates {
  int data = 0;
  int pipeline = 0;
  int expert = 0;
  int replica = 0;
  bool operator==(const MeshCoordinates&) const = default;
};

/// Throws Error(bad_recipe) where the shape does not hold or does not give `ranks` ranks.
void check_mesh(const MeshShape& shape, int ranks);
MeshCoordinates coordinates_of(const MeshShape& shape, int rank);
int rank_at(const MeshShape& shape, int pipeline, int data);

/// This rank's place and its communicators: made once, and handed to whoever speaks along an axis. The world must
/// outlive it; the axes are communicators of their own.
class Mesh {
 public:
  /// Collective over `world`.
  Mesh(Communicator& world, const MeshShape& shape);
  /// The place of `rank` in a dry run, with nobody there.
  Mesh(const MeshShape& shape, int rank);

  const MeshShape& shape() const { return shape_; }
  const MeshCoordinates& at() const { return at_; }
  Communicator& world() { return world_; }         ///< all ranks: decisions
  Communicator& data() { return *data_; }          ///< same stage, all data: gradients of dense parameters
  Communicator& pipeline() { return *pipeline_; }  ///< same data, all stages: activations
  Communicator& expert() { return *expert_; }      ///< same stage and replica: token exchange
  Communicator& replica() { return *replica_; }    ///< same stage and experts: gradients of expert parameters
  Communicator& model() { return *model_; }        ///< same replica: all stages and experts, for checkpoints

 private:
  std::unique_ptr<Communicator> dry_world_;
  Communicator& world_;
  MeshShape shape_;
  MeshCoordinates at_;
  std::unique_ptr<Communicator> data_, pipeline_, expert_, replica_, model_;
};

}  // namespace shoestring
