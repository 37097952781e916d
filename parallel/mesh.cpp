#include "parallel/mesh.h"

namespace shoestring {

void check_mesh(const MeshShape& shape, int ranks) {
  if (shape.data < 1 || shape.pipeline < 1 || shape.expert < 1) {
    fail(ExitCode::bad_recipe, "parallel axes must be at least 1: data {}, pipeline {}, expert {}", shape.data,
         shape.pipeline, shape.expert);
  }
  if (shape.data % shape.expert != 0) {
    fail(ExitCode::bad_recipe, "parallel.expert = {} does not divide the data axis of {} ranks: set one that does",
         shape.expert, shape.data);
  }
  if (shape.ranks() != ranks) {
    fail(ExitCode::bad_recipe, "{} pipeline stages x {} data ranks need {} processes, but {} were started",
         shape.pipeline, shape.data, shape.ranks(), ranks);
  }
}

MeshCoordinates coordinates_of(const MeshShape& shape, int rank) {
  MeshCoordinates at;
  at.pipeline = rank / shape.data;
  at.data = rank % shape.data;
  at.replica = at.data / shape.expert;
  at.expert = at.data % shape.expert;
  return at;
}

int rank_at(const MeshShape& shape, int pipeline, int data) { return pipeline * shape.data + data; }

Mesh::Mesh(Communicator& world, const MeshShape& shape) : world_(world), shape_(shape) {
  check_mesh(shape, world.size());
  at_ = coordinates_of(shape, world.rank());
  const int stage_and_replica = at_.pipeline * shape.replicas() + at_.replica;
  const int stage_and_expert = at_.pipeline * shape.expert + at_.expert;
  data_ = world.split(at_.pipeline, at_.data, "data");
  pipeline_ = world.split(at_.data, at_.pipeline, "pipeline");
  expert_ = world.split(stage_and_replica, at_.expert, "expert");
  replica_ = world.split(stage_and_expert, at_.replica, "replica");
  model_ = world.split(at_.replica, at_.pipeline * shape.expert + at_.expert, "model");
}

Mesh::Mesh(const MeshShape& shape, int rank)
    : dry_world_(dry_communicator(rank, shape.ranks(), "world")),
      world_(*dry_world_),
      shape_(shape),
      at_(coordinates_of(shape, rank)),
      data_(dry_communicator(at_.data, shape.data, "data")),
      pipeline_(dry_communicator(at_.pipeline, shape.pipeline, "pipeline")),
      expert_(dry_communicator(at_.expert, shape.expert, "expert")),
      replica_(dry_communicator(at_.replica, shape.replicas(), "replica")),
      model_(dry_communicator(at_.pipeline * shape.expert + at_.expert, shape.ranks_of_model(), "model")) {}

}  // namespace shoestring
