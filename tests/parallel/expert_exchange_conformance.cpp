// What an exchange of rows must do, on every back end: each rank knows the routing of all, so that it knows what it
// must receive, and how many bytes it must have sent.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/base/random.h"
#include "parallel/expert_exchange.h"
#include "tests/parallel/communicator_conformance.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kOwn = 2;     // experts of a rank
constexpr std::int64_t kChosen = 2;  // of each token
constexpr std::int64_t kWidth = 3;

enum class Routing { spread, skewed, to_one, from_one, nothing };

std::int64_t tokens_of(Routing routing, int rank) {
  if (routing == Routing::nothing || (routing == Routing::from_one && rank != 0)) return 0;
  return 5 + 3 * rank;
}

/// Rows of one source in the order of the experts: (expert, token), and where a token's slots are.
struct Rows {
  std::vector<std::int64_t> offsets;
  std::vector<std::int32_t> slots;
};

Rows rows_of(Routing routing, int rank, std::int64_t experts) {
  const Random random(11, Purpose::test, static_cast<std::uint32_t>(rank));
  std::vector<std::vector<std::int32_t>> of_expert(static_cast<std::size_t>(experts));
  for (std::int64_t token = 0; token < tokens_of(routing, rank); ++token) {
    const auto at = static_cast<std::uint64_t>(token);
    std::int64_t first = static_cast<std::int64_t>(random.below(2 * at, static_cast<std::uint32_t>(experts)));
    std::int64_t second =
        (first + 1 + static_cast<std::int64_t>(random.below(2 * at + 1, static_cast<std::uint32_t>(experts - 1)))) %
        experts;
    if (routing == Routing::skewed && token % 4 != 0) first = 0, second = 1;
    if (routing == Routing::to_one) first = experts - 1, second = experts - 2;
    of_expert[static_cast<std::size_t>(first)].push_back(static_cast<std::int32_t>(token * kChosen));
    of_expert[static_cast<std::size_t>(second)].push_back(static_cast<std::int32_t>(token * kChosen + 1));
  }
  Rows rows{{0}, {}};
  for (const auto& slots : of_expert) {
    rows.slots.insert(rows.slots.end(), slots.begin(), slots.end());
    rows.offsets.push_back(static_cast<std::int64_t>(rows.slots.size()));
  }
  return rows;
}

float of_token(int rank, std::int64_t token, std::int64_t column) {
  return static_cast<float>(rank * 10000 + token * 10 + column);
}
float of_slot(int rank, std::int64_t slot) { return static_cast<float>(rank * 10000 + slot) + 0.5F; }

/// Bytes that `rank` sends to others, counted row by row.
struct Bytes {
  std::int64_t dispatch = 0;
  std::int64_t combine = 0;
};

Bytes expected_bytes(const std::vector<Rows>& all, int rank, int peers) {
  const int ranks = static_cast<int>(all.size());
  const std::int64_t row = kWidth * static_cast<std::int64_t>(sizeof(float));
  Bytes bytes;
  for (int source = 0; source < ranks; ++source) {
    const Rows& rows = all[static_cast<std::size_t>(source)];
    std::vector<std::set<std::int32_t>> crossed(static_cast<std::size_t>(ranks / peers));
    for (std::int64_t expert = 0; expert < ranks * kOwn; ++expert) {
      const int target = static_cast<int>(expert / kOwn);
      // The rank of the target's node that stands where the source stands in its own.
      const int relay = target / peers * peers + source % peers;
      const bool between = source / peers != target / peers;
      for (std::int64_t i = rows.offsets[static_cast<std::size_t>(expert)];
           i < rows.offsets[static_cast<std::size_t>(expert + 1)]; ++i) {
        const std::int32_t token = rows.slots[static_cast<std::size_t>(i)] / static_cast<std::int32_t>(kChosen);
        const bool first = between && crossed[static_cast<std::size_t>(target / peers)].insert(token).second;
        if (rank == source && first) bytes.dispatch += row;
        if (rank == relay && relay != target) bytes.dispatch += row;
        if (rank == target && target != relay) bytes.combine += row;
        if (rank == relay && between) bytes.combine += row;
      }
    }
  }
  return bytes;
}

/// `alone`: nothing else is sent, so that bytes can be counted.
void check_exchange(Communicator& world, ExpertExchange& exchange, Routing routing, int per_node, bool alone) {
  SCOPED_TRACE(fmt::format("routing {}, {} ranks, {} a node", static_cast<int>(routing), world.size(), per_node));
  const int ranks = world.size();
  const std::int64_t experts = ranks * kOwn;
  std::vector<Rows> all;
  for (int rank = 0; rank < ranks; ++rank) all.push_back(rows_of(routing, rank, experts));
  const Rows& mine = all[static_cast<std::size_t>(world.rank())];
  const auto sent = static_cast<std::int64_t>(mine.slots.size());
  EXPECT_EQ(exchange.first_expert(), world.rank() * kOwn);
  const ExpertExchange::Plan plan = exchange.plan(exchange.announce(mine.offsets, mine.slots, kChosen));

  // What must come: by source, by expert, as sorted there.
  std::vector<std::pair<int, std::int32_t>> want;
  std::vector<std::int64_t> offsets = {0};
  for (int source = 0; source < ranks; ++source) {
    const Rows& rows = all[static_cast<std::size_t>(source)];
    for (std::int64_t e = exchange.first_expert(); e < exchange.first_expert() + kOwn; ++e) {
      for (std::int64_t i = rows.offsets[static_cast<std::size_t>(e)];
           i < rows.offsets[static_cast<std::size_t>(e + 1)]; ++i) {
        want.emplace_back(source, rows.slots[static_cast<std::size_t>(i)]);
      }
      offsets.push_back(static_cast<std::int64_t>(want.size()));
    }
  }
  EXPECT_EQ(plan.offsets, offsets);
  std::int64_t most = 0;
  for (int rank = 0; rank < ranks; ++rank) most = std::max(most, tokens_of(routing, rank));
  EXPECT_LE(plan.rows(), ExpertExchange::most_rows(ranks, kOwn, most, kChosen));

  Tensor tokens(DType::f32, {sent + 1, kWidth}), slots(DType::f32, {sent + 1, 1}), back(DType::f32, {sent + 1, kWidth});
  for (std::int64_t row = 0; row < sent; ++row) {
    const std::int32_t slot = mine.slots[static_cast<std::size_t>(row)];
    slots.as<float>()[row] = of_slot(world.rank(), slot);
    for (std::int64_t c = 0; c < kWidth; ++c) {
      tokens.as<float>()[row * kWidth + c] = of_token(world.rank(), slot / kChosen, c);
    }
  }
  Tensor received(DType::f32, {plan.rows(), kWidth}), received_slots(DType::f32, {plan.rows(), 1});
  const std::int64_t before = world.sent_bytes();
  exchange.dispatch(plan, tokens, received, {slots, received_slots});
  const std::int64_t dispatched = world.sent_bytes() - before;
  for (std::int64_t row = 0; row < plan.rows(); ++row) {
    const auto [source, slot] = want[static_cast<std::size_t>(row)];
    EXPECT_EQ(received_slots.as<float>()[row], of_slot(source, slot));
    for (std::int64_t c = 0; c < kWidth; ++c) {
      EXPECT_EQ(received.as<float>()[row * kWidth + c], of_token(source, slot / kChosen, c));
      received.as<float>()[row * kWidth + c] = of_slot(source, slot * kWidth + c);  // the expert's result
    }
  }
  Tensor slots_back(DType::f32, {sent + 1, 1});
  const std::int64_t between = world.sent_bytes();
  exchange.combine(plan, received, back, {received_slots, slots_back});
  const std::int64_t combined = world.sent_bytes() - between;
  for (std::int64_t row = 0; row < sent; ++row) {
    const std::int32_t slot = mine.slots[static_cast<std::size_t>(row)];
    EXPECT_EQ(slots_back.as<float>()[row], of_slot(world.rank(), slot));
    for (std::int64_t c = 0; c < kWidth; ++c) {
      EXPECT_EQ(back.as<float>()[row * kWidth + c], of_slot(world.rank(), slot * kWidth + c));
    }
  }
  if (!alone) return;
  const Bytes bytes = expected_bytes(all, world.rank(), per_node == 0 ? ranks : per_node);
  // What travels beside them, a float a row, is flat.
  const auto self = static_cast<std::size_t>(world.rank());
  EXPECT_EQ(dispatched, bytes.dispatch + 4 * (sent - plan.sent[self]));
  EXPECT_EQ(combined, bytes.combine + 4 * (plan.rows() - plan.received[self]));
}

// While the rows of one half are on their way, the other sends its own.
void check_turns(Communicator& world, ExpertExchange& exchange, Routing routing, int per_node) {
  Turns turns;
  exchange.take(&turns);
  turns.run([&] { check_exchange(world, exchange, routing, per_node, false); },
            [&] { check_exchange(world, exchange, Routing::spread, per_node, false); }, [] { return 0.0; });
  exchange.take(nullptr);
}

}  // namespace

void experts_exchange_rows(Communicator& world) {
  for (int per_node = 0; per_node < world.size(); ++per_node) {
    if (per_node > 0 && world.size() % per_node != 0) continue;
    ExpertExchange exchange(world, world.size() * kOwn, per_node);
    for (const Routing routing :
         {Routing::spread, Routing::skewed, Routing::to_one, Routing::from_one, Routing::nothing}) {
      check_exchange(world, exchange, routing, per_node, true);
      check_turns(world, exchange, routing, per_node);
    }
  }
}

}  // namespace shoestring::testing
