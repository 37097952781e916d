// What every back end must do, as cases that run on all ranks of one communicator: used with threads and with MPI, and
// through staged_communicator.h with NCCL.
#pragma once

#include <span>

#include "parallel/communicator.h"

namespace shoestring::testing {

struct ConformanceCase {
  const char* name;
  void (*run)(Communicator&);  ///< on every rank; reports through GoogleTest
};
std::span<const ConformanceCase> conformance_cases();

/// The case of expert_exchange, flat and over nodes of every size that divides the ranks.
void experts_exchange_rows(Communicator& world);

}  // namespace shoestring::testing
