#include "tests/parallel/communicator_conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/base/random.h"

namespace shoestring::testing {
namespace {

template <class T>
std::vector<T> zeros(std::int64_t count) {
  return std::vector<T>(static_cast<std::size_t>(count));
}

TensorView flat(std::vector<float>& values) {
  return view_of(values.data(), DType::f32, {static_cast<std::int64_t>(values.size())});
}
TensorView flat(std::vector<std::int64_t>& values) {
  return view_of(values.data(), DType::i64, {static_cast<std::int64_t>(values.size())});
}

/// What `rank` holds: magnitudes far apart, so that another order of adding shows in the bits.
std::vector<float> content(int rank, std::int64_t count) {
  const Random random(7, Purpose::test, static_cast<std::uint32_t>(rank));
  std::vector<float> values = zeros<float>(count);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double magnitude = static_cast<double>(1 << random.below(2 * i, 20));
    values[i] = static_cast<float>((random.uniform(2 * i + 1) - 0.5) * magnitude);
  }
  return values;
}

void expect_bits(const std::vector<float>& got, const std::vector<float>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  if (got.empty()) return;
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << what;
}

std::vector<float> rank_order_sum(int ranks, std::int64_t count) {
  std::vector<float> total = content(0, count);
  for (int r = 1; r < ranks; ++r) {
    const std::vector<float> part = content(r, count);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += part[i];
  }
  return total;
}

void all_reduce_adds_in_rank_order(Communicator& world) {
  for (const std::int64_t count : {0, 1, 2, 31, 32, 33, 5000}) {
    std::vector<float> values = content(world.rank(), count);
    world.all_reduce(flat(values));
    expect_bits(values, rank_order_sum(world.size(), count), "all_reduce");
  }
}

void all_reduce_of_other_formats(Communicator& world) {
  std::vector<std::int64_t> counts = {world.rank(), 1, -world.rank()};
  world.all_reduce(flat(counts));
  const std::int64_t triangle = static_cast<std::int64_t>(world.size()) * (world.size() - 1) / 2;
  EXPECT_EQ(counts, (std::vector<std::int64_t>{triangle, world.size(), -triangle}));

  std::vector<std::int64_t> highest = {world.rank(), -world.rank()};
  world.all_reduce(flat(highest), Reduction::max);
  EXPECT_EQ(highest, (std::vector<std::int64_t>{world.size() - 1, 0}));

  // bf16 is kept in float until the end: 1 + n * 2^-9 survives where rounding after each step would lose every term.
  BFloat16 small(world.rank() == 0 ? 1.0F : 0x1p-9F);
  world.all_reduce(view_of(&small, DType::bf16, {1}));
  EXPECT_EQ(small.bits, BFloat16(1.0F + static_cast<float>(world.size() - 1) * 0x1p-9F).bits);
}

void reduce_scatter_gives_each_rank_its_part(Communicator& world) {
  const std::int64_t count = 37;
  const std::vector<float> total = rank_order_sum(world.size(), count * world.size());
  std::vector<float> sent = content(world.rank(), count * world.size());
  std::vector<float> received = zeros<float>(count);
  world.reduce_scatter(flat(received), flat(sent));
  const auto begin = total.begin() + world.rank() * count;
  expect_bits(received, std::vector<float>(begin, begin + count), "reduce_scatter");
}

void all_gather_in_rank_order(Communicator& world) {
  for (const std::int64_t count : {0, 1, 37}) {
    std::vector<float> want;
    for (int r = 0; r < world.size(); ++r) {
      const std::vector<float> part = content(r, count);
      want.insert(want.end(), part.begin(), part.end());
    }
    std::vector<float> sent = content(world.rank(), count);
    std::vector<float> received = zeros<float>(count * world.size());
    world.all_gather(flat(received), flat(sent));
    expect_bits(received, want, "all_gather");

    std::vector<float> in_place = zeros<float>(count * world.size());
    std::copy(sent.begin(), sent.end(), in_place.begin() + world.rank() * count);
    world.all_gather(flat(in_place), flat(in_place).slice(0, world.rank() * count, count));
    expect_bits(in_place, want, "all_gather in place");
  }
}

void all_to_all_transposes(Communicator& world) {
  std::vector<std::int64_t> sent, want;
  for (int peer = 0; peer < world.size(); ++peer) {
    for (int i = 0; i < 3; ++i) {
      sent.push_back(world.rank() * 1000 + peer * 10 + i);
      want.push_back(peer * 1000 + world.rank() * 10 + i);
    }
  }
  std::vector<std::int64_t> received = zeros<std::int64_t>(3 * world.size());
  world.all_to_all(flat(received), flat(sent));
  EXPECT_EQ(received, want);
}

/// Rank a sends (a * 5 + b * 3) % 7 elements to b: uneven, with zeros.
std::int64_t uneven(int from, int to) { return (from * 5 + to * 3) % 7; }

void all_to_all_v_keeps_uneven_parts(Communicator& world) {
  std::vector<std::int64_t> send_counts, receive_counts, sent, want;
  std::int64_t to_others = 0;
  for (int peer = 0; peer < world.size(); ++peer) {
    send_counts.push_back(uneven(world.rank(), peer));
    receive_counts.push_back(uneven(peer, world.rank()));
    if (peer != world.rank()) to_others += send_counts.back();
    for (std::int64_t i = 0; i < send_counts.back(); ++i) sent.push_back(world.rank() * 1000 + peer * 10 + i);
    for (std::int64_t i = 0; i < receive_counts.back(); ++i) want.push_back(peer * 1000 + world.rank() * 10 + i);
  }
  std::vector<std::int64_t> received = zeros<std::int64_t>(static_cast<std::int64_t>(want.size()));
  const std::int64_t before = world.sent_bytes();
  world.all_to_all_v(flat(received), receive_counts, flat(sent), send_counts);
  EXPECT_EQ(received, want);
  EXPECT_EQ(world.sent_bytes() - before, to_others * 8);
}

void broadcast_from_every_root(Communicator& world) {
  for (int root = 0; root < world.size(); ++root) {
    std::vector<float> values = content(world.rank(), 100);
    world.broadcast(flat(values), root);
    expect_bits(values, content(root, 100), "broadcast");
  }
}

void messages_of_a_pair_keep_their_order(Communicator& world) {
  const int next = (world.rank() + 1) % world.size();
  const int previous = (world.rank() + world.size() - 1) % world.size();
  std::vector<std::vector<float>> sent, received;
  for (int i = 0; i < 200; ++i) {  // more than the 128 numbers a tag can tell apart
    sent.push_back(content(world.rank() + 100 * i, i % 5));
    received.push_back(zeros<float>(i % 5));
  }
  world.group_begin();
  for (std::size_t i = 0; i < sent.size(); ++i) {
    world.send(flat(sent[i]), next);
    world.recv(flat(received[i]), previous);
  }
  world.group_end();
  for (int i = 0; i < 200; ++i) {
    expect_bits(received[static_cast<std::size_t>(i)], content(previous + 100 * i, i % 5), "message");
  }
}

void blocking_messages_alternate(Communicator& world) {
  if (world.size() == 1) return;
  std::vector<float> ball = content(0, 64);
  for (int turn = 0; turn < 10; ++turn) {  // once round the ring each turn
    if (world.rank() > 0) world.recv(flat(ball), world.rank() - 1);
    world.send(flat(ball), (world.rank() + 1) % world.size());
    if (world.rank() == 0) world.recv(flat(ball), world.size() - 1);
  }
  expect_bits(ball, content(0, 64), "ball");
}

void posted_groups_finish_in_any_order(Communicator& world) {
  const int next = (world.rank() + 1) % world.size();
  const int previous = (world.rank() + world.size() - 1) % world.size();
  std::array<std::vector<float>, 3> sent, received;
  std::array<Pending, 3> pending;
  for (int i = 0; i < 3; ++i) {
    const auto at = static_cast<std::size_t>(i);
    sent[at] = content(world.rank() + i, 1000 + i);
    received[at] = zeros<float>(1000 + i);
    world.group_begin();
    world.send(flat(sent[at]), next);
    world.recv(flat(received[at]), previous);
    pending[at] = world.group_post();
  }
  world.barrier();  // other messages may overtake nothing, but pass while these are under way
  for (const std::size_t at : {2U, 0U, 1U}) {
    pending[at].wait();
    expect_bits(received[at], content(previous + static_cast<int>(at), 1000 + static_cast<std::int64_t>(at)), "group");
  }
}

void large_messages_arrive_whole(Communicator& world) {
  const std::int64_t count = 300000;  // several pieces where a back end limits the size of one
  const int next = (world.rank() + 1) % world.size();
  const int previous = (world.rank() + world.size() - 1) % world.size();
  std::vector<float> sent = content(world.rank(), count);
  std::vector<float> received = zeros<float>(count);
  world.group_begin();
  world.send(flat(sent), next);
  world.recv(flat(received), previous);
  world.group_end();
  expect_bits(received, content(previous, count), "large message");
}

void split_orders_by_key(Communicator& world) {
  const int color = world.rank() % 2;
  const auto child = world.split(color, -world.rank(), "parity");  // reversed order
  ASSERT_NE(child, nullptr);
  const int members = (world.size() + 1 - color) / 2;
  EXPECT_EQ(child->size(), members);
  EXPECT_EQ(child->rank(), members - 1 - world.rank() / 2);
  std::vector<std::int64_t> mine = {world.rank()};
  std::vector<std::int64_t> all = zeros<std::int64_t>(members);
  child->all_gather(flat(all), flat(mine));
  for (int i = 0; i < members; ++i) {
    EXPECT_EQ(all[static_cast<std::size_t>(i)], (members - 1 - i) * 2 + color);
  }
  // A child splits again, and the parent still works.
  const auto single = child->split(child->rank(), 0);
  EXPECT_EQ(single->size(), 1);
  world.barrier();
}

void split_may_leave_ranks_out(Communicator& world) {
  const auto child = world.split(world.rank() == 0 ? -1 : 3, world.rank());
  EXPECT_EQ(child == nullptr, world.rank() == 0);
  if (child != nullptr) {
    EXPECT_EQ(child->size(), world.size() - 1);
    EXPECT_EQ(child->rank(), world.rank() - 1);
    child->barrier();
  }
}

void waiting_too_long_is_an_error(Communicator& world) {
  const auto child = world.split(0, world.rank(), "quiet");
  child->set_timeout(0.2);
  if (world.rank() == 0) {
    std::vector<float> values = zeros<float>(5);
    try {
      child->recv(flat(values), world.size() - 1);
      ADD_FAILURE() << "a message nobody sent";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::hang);
      const std::string text = error.what();
      for (const std::string& part :
           {std::string("world/quiet:0"), std::string("rank 0 waited 0.2 s"),
            fmt::format("from rank {}", world.size() - 1), std::string("message"), std::string("20 bytes of f32")}) {
        EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
      }
    }
  }
  world.barrier();  // the parent is not affected
}

/// Runs `first` (messages, posted as a group) on rank 0 and `second` on rank 1 of a fresh pair. Both must fail, and the
/// receiving side names both. Rank 0 gives up only once rank 1 has met its message, however late that came.
template <class First, class Second>
void expect_mismatch(Communicator& world, First first, Second second, std::vector<std::string> words) {
  const auto pair = world.split(world.rank() < 2 ? 0 : -1, world.rank(), "pair");
  if (pair == nullptr || pair->size() < 2) return;
  std::vector<float> met = zeros<float>(1);
  if (pair->rank() == 0) {
    pair->set_timeout(0.2);
    pair->group_begin();
    first(*pair);
    Pending sent = pair->group_post();
    world.recv(flat(met), 1);
    EXPECT_THROW(sent.wait(), Error) << "a mismatch went unnoticed on rank 0";
    return;
  }
  try {
    second(*pair);
    ADD_FAILURE() << "a mismatch went unnoticed on rank 1";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.code(), ExitCode::bug) << text;
    words.insert(words.end(), {"rank 0 sent", "rank 1 expected"});
    for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
  }
  world.send(flat(met), 0);
}

void mismatches_name_both_sides(Communicator& world) {
  std::vector<float> four = zeros<float>(4);
  std::vector<float> eight = zeros<float>(8);
  std::vector<std::int64_t> two = zeros<std::int64_t>(2);
  const auto send_four = [&](Communicator& pair) { pair.send(flat(four), 1); };
  expect_mismatch(world, send_four, [&](Communicator& pair) { pair.recv(flat(eight), 0); }, {"16 bytes", "32 bytes"});
  expect_mismatch(world, send_four, [&](Communicator& pair) { pair.recv(flat(two), 0); }, {"f32", "i64"});
  expect_mismatch(world, send_four, [&](Communicator& pair) { pair.barrier(); }, {"send/recv", "barrier"});
}

void wrong_calls_are_refused(Communicator& world) {
  std::vector<float> values = zeros<float>(6);
  EXPECT_THROW(world.send(flat(values), world.size()), Error);
  EXPECT_THROW(world.recv(flat(values), -1), Error);
  EXPECT_THROW(world.group_post(), Error);
  EXPECT_THROW(world.send(view_of(values.data(), DType::f32, {2, 3}).transposed(), 0), Error);
  EXPECT_THROW(world.send(view_of(values.data(), DType::f32, {6}, {DeviceKind::cuda, 0}), 0), Error);
  world.group_begin();
  EXPECT_THROW(world.barrier(), Error);
  EXPECT_THROW(world.group_begin(), Error);
  world.group_end();
}

constexpr ConformanceCase kCases[] = {
    {"all_reduce_adds_in_rank_order", all_reduce_adds_in_rank_order},
    {"all_reduce_of_other_formats", all_reduce_of_other_formats},
    {"reduce_scatter_gives_each_rank_its_part", reduce_scatter_gives_each_rank_its_part},
    {"all_gather_in_rank_order", all_gather_in_rank_order},
    {"all_to_all_transposes", all_to_all_transposes},
    {"all_to_all_v_keeps_uneven_parts", all_to_all_v_keeps_uneven_parts},
    {"broadcast_from_every_root", broadcast_from_every_root},
    {"messages_of_a_pair_keep_their_order", messages_of_a_pair_keep_their_order},
    {"blocking_messages_alternate", blocking_messages_alternate},
    {"posted_groups_finish_in_any_order", posted_groups_finish_in_any_order},
    {"large_messages_arrive_whole", large_messages_arrive_whole},
    {"split_orders_by_key", split_orders_by_key},
    {"split_may_leave_ranks_out", split_may_leave_ranks_out},
    {"waiting_too_long_is_an_error", waiting_too_long_is_an_error},
    {"mismatches_name_both_sides", mismatches_name_both_sides},
    {"experts_exchange_rows", experts_exchange_rows},
    {"wrong_calls_are_refused", wrong_calls_are_refused},
};

}  // namespace

std::span<const ConformanceCase> conformance_cases() { return kCases; }

}  // namespace shoestring::testing
