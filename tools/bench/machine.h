// `shoestring bench --calibrate FILE`: what the machine at hand can do, as a hardware file.
#pragma once

#include "core/budget/hardware.h"
#include "kernels/base/workers.h"
#include "parallel/communicator.h"

namespace shoestring {

/// What one rank has, measured while all ranks do the same; a few seconds. Collective; every rank gets the figures of
/// the slowest. Products are those a training step runs, over square matrices from 128 to 2048 a side: the rate of an
/// endless one and the extent that halves it are the line that fits their seconds per FLOP best. Links are measured
/// between the first rank and another of its machine, and one of another machine, where there are such; a rate that is
/// not there is left unknown, and so are watts and prices, which nothing here can see.
Hardware measure_machine(Communicator& world, Workers& workers);

}  // namespace shoestring
