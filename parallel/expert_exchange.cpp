#include "parallel/expert_exchange.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t row_bytes(ConstTensorView rows) { return rows.shape[1] * size_bytes(rows.dtype); }

ConstTensorView bytes_of(const void* data, std::int64_t bytes) { return view_of(data, DType::u8, {bytes}); }
TensorView bytes_of(void* data, std::int64_t bytes) { return view_of(data, DType::u8, {bytes}); }

const std::byte* row_of(ConstTensorView rows, std::int64_t row) {
  return static_cast<const std::byte*>(rows.data) + row * row_bytes(rows);
}
std::byte* row_of(TensorView rows, std::int64_t row) {
  return static_cast<std::byte*>(rows.data) + row * row_bytes(rows);
}

/// [0, c0, c0 + c1, ...].
std::vector<std::int64_t> begins(std::span<const std::int64_t> counts) {
  std::vector<std::int64_t> all(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), all.begin() + 1);
  return all;
}

std::int64_t total(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

/// At least `bytes` of `buffer`, which only grows.
std::byte* room(std::vector<std::byte>& buffer, std::int64_t bytes) {
  buffer.resize(std::max(buffer.size(), index(bytes)));
  return buffer.data();
}

std::int64_t relayed_rows(const ExpertExchange::Plan& plan) {
  std::int64_t rows = 0;
  for (const auto& relayed : plan.relayed) rows += static_cast<std::int64_t>(relayed.size());
  return rows;
}

std::vector<std::int64_t> scaled(std::span<const std::int64_t> counts, std::int64_t by) {
  std::vector<std::int64_t> all(counts.begin(), counts.end());
  for (std::int64_t& count : all) count *= by;
  return all;
}

void check_rows(std::string_view what, ConstTensorView sorted, std::int64_t sent, ConstTensorView received,
                std::int64_t rows) {
  check(sorted.shape.rank() == 2 && received.shape.rank() == 2 && sorted.dtype == received.dtype &&
            sorted.shape[1] == received.shape[1] && sorted.contiguous() && received.contiguous(),
        "{} of rows {} and {}", what, sorted, received);
  check(sorted.shape[0] >= sent && received.shape[0] == rows, "{} of {} and {} rows with {} and {}", what, sent, rows,
        sorted, received);
}

/// Which of the rows [begin, end) are the first of their token; for each row, which of those it repeats.
struct Repeats {
  std::vector<std::int32_t> firsts;
  std::vector<std::int32_t> of_rows;
};

Repeats repeats_of(std::span<const std::int32_t> slot_of_row, std::int64_t chosen, std::int64_t begin,
                   std::int64_t end) {
  Repeats repeats;
  std::vector<std::int32_t> place_of_token;  // among the firsts, from 1
  for (std::int64_t row = begin; row < end; ++row) {
    const std::size_t token = index(slot_of_row[index(row)] / chosen);
    if (token >= place_of_token.size()) place_of_token.resize(token + 1, 0);
    std::int32_t& place = place_of_token[token];
    if (place == 0) {
      repeats.firsts.push_back(static_cast<std::int32_t>(row));
      place = static_cast<std::int32_t>(repeats.firsts.size());
    }
    repeats.of_rows.push_back(place - 1);
  }
  return repeats;
}

}  // namespace

ExpertExchange::ExpertExchange(Communicator& group, std::int64_t experts, int ranks_per_node)
    : group_(group), own_(experts / group.size()), peers_(ranks_per_node > 0 ? ranks_per_node : group.size()) {
  if (experts < group.size() || experts % group.size() != 0) {
    fail(ExitCode::bad_recipe, "parallel.expert = {} does not divide the {} experts of a layer: set one that does",
         group.size(), experts);
  }
  if (group.size() % peers_ != 0) {
    fail(ExitCode::bad_recipe, "parallel.expert = {} is not a whole number of nodes of {} ranks: set a multiple",
         group.size(), peers_);
  }
}

std::int64_t ExpertExchange::most_rows(int ranks, std::int64_t own_experts, std::int64_t tokens, std::int64_t chosen) {
  return ranks * tokens * std::min(own_experts, chosen);
}

// ---- messages

void ExpertExchange::put(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                         std::span<const std::int64_t> send_counts) {
  const ConstTensorView from = sent.reshaped({sent.elements()});
  const TensorView to = received.reshaped({received.elements()});
  std::int64_t out = 0;
  std::int64_t in = 0;
  for (int rank = 0; rank < ranks(); ++rank) {
    const std::int64_t going = send_counts[index(rank)];
    const std::int64_t coming = receive_counts[index(rank)];
    if (going > 0) group_.send(from.slice(0, out, going), rank);
    if (coming > 0) group_.recv(to.slice(0, in, coming), rank);
    out += going;
    in += coming;
  }
}

void ExpertExchange::finish(Pending messages) {
  if (turns_ != nullptr) turns_->pass();
  if (messages.empty()) return;
  if (waiting_) waiting_(true);
  messages.wait();
  if (waiting_) waiting_(false);
}

std::int64_t ExpertExchange::staging_bytes() const {
  std::size_t bytes = 0;
  for (const Staging& half : staging_) bytes += half.packed.size() + half.arrived.size();
  return static_cast<std::int64_t>(bytes);
}

// ---- plans

ExpertExchange::Announced ExpertExchange::announce(std::span<const std::int64_t> offsets,
                                                   std::span<const std::int32_t> slot_of_row, std::int64_t chosen) {
  check(offsets.size() == index(experts() + 1) && offsets.front() == 0 && std::ranges::is_sorted(offsets),
        "offsets of {} experts do not fit {}", offsets.size(), experts());
  check(static_cast<std::int64_t>(slot_of_row.size()) >= offsets.back(), "{} rows of {} have a slot",
        slot_of_row.size(), offsets.back());
  Announced announced{.offsets = {offsets.begin(), offsets.end()},
                      .slot_of_row = {},
                      .chosen = chosen,
                      .told = std::vector<std::int64_t>(index(experts())),
                      .heard = std::vector<std::int64_t>(index(experts())),
                      .messages = {}};
  if (two_level()) announced.slot_of_row.assign(slot_of_row.begin(), slot_of_row.end());
  for (std::size_t e = 0; e < announced.told.size(); ++e) announced.told[e] = offsets[e + 1] - offsets[e];
  const std::vector<std::int64_t> even(index(ranks()), own_);
  group_.group_begin();
  put(view_of(announced.heard.data(), DType::i64, {experts()}), even,
      view_of(announced.told.data(), DType::i64, {experts()}), even);
  announced.messages = group_.group_post();
  return announced;
}

ExpertExchange::Plan ExpertExchange::plan(Announced announced) {
  finish(std::move(announced.messages));
  const std::vector<std::int64_t>& offsets = announced.offsets;
  Plan plan;
  plan.offsets = begins(announced.heard);
  for (int rank = 0; rank < ranks(); ++rank) {
    const std::size_t begin = index(rank * own_);
    const std::size_t end = index((rank + 1) * own_);
    plan.sent.push_back(offsets[end] - offsets[begin]);
    plan.received.push_back(plan.offsets[end] - plan.offsets[begin]);
  }
  if (two_level()) plan_relays(plan, offsets, announced.slot_of_row, announced.chosen);
  return plan;
}

// Each node's relay for this rank learns the rows of each peer there, and which of the arriving rows each one repeats.
void ExpertExchange::plan_relays(Plan& plan, std::span<const std::int64_t> offsets,
                                 std::span<const std::int32_t> slot_of_row, std::int64_t chosen) {
  const std::size_t count = index(nodes());
  plan.firsts.resize(count);
  plan.relayed.resize(count);
  plan.hand_ons.resize(count);
  plan.arrivals.assign(count, 0);
  std::vector<std::vector<std::int32_t>> repeats(count);
  std::vector<std::vector<std::int64_t>> notes(count);  // rows of each peer, then the rows that cross
  std::vector<std::vector<std::int64_t>> heard(count);
  for (int n = 0; n < nodes(); ++n) {
    if (n == node()) continue;
    const std::int64_t expert = n * peers_ * own_;
    Repeats of_node = repeats_of(slot_of_row, chosen, offsets[index(expert)], offsets[index(expert + peers_ * own_)]);
    repeats[index(n)] = std::move(of_node.of_rows);
    plan.firsts[index(n)] = std::move(of_node.firsts);
    notes[index(n)].assign(plan.sent.begin() + n * peers_, plan.sent.begin() + (n + 1) * peers_);
    notes[index(n)].push_back(static_cast<std::int64_t>(plan.firsts[index(n)].size()));
    heard[index(n)].resize(index(peers_ + 1));
  }
  tell_relays(notes, heard, DType::i64);
  for (std::size_t n = 0; n < count; ++n) {
    if (heard[n].empty()) continue;
    plan.arrivals[n] = heard[n].back();
    heard[n].pop_back();
    plan.relayed[n].resize(index(total(heard[n])));
    plan.hand_ons[n] = std::move(heard[n]);
  }
  tell_relays(repeats, plan.relayed, DType::i32);
}

template <class Element>
void ExpertExchange::tell_relays(const std::vector<std::vector<Element>>& told,
                                 std::vector<std::vector<Element>>& heard, DType dtype) {
  group_.group_begin();
  for (int n = 0; n < nodes(); ++n) {
    const auto& to = told[index(n)];
    auto& from = heard[index(n)];
    const int relay = n * peers_ + peer();
    if (!to.empty()) group_.send(view_of(to.data(), dtype, {static_cast<std::int64_t>(to.size())}), relay);
    if (!from.empty()) group_.recv(view_of(from.data(), dtype, {static_cast<std::int64_t>(from.size())}), relay);
  }
  finish_group();
}

// ---- rows

void ExpertExchange::put_out(const Plan& plan, ConstTensorView rows, TensorView received) {
  check_rows("dispatch", rows, total(plan.sent), received, plan.rows());
  put(received, scaled(plan.received, received.shape[1]), rows, scaled(plan.sent, rows.shape[1]));
}

void ExpertExchange::put_back(const Plan& plan, ConstTensorView rows, TensorView to) {
  check_rows("combine", to, total(plan.sent), rows, plan.rows());
  put(to, scaled(plan.sent, to.shape[1]), rows, scaled(plan.received, rows.shape[1]));
}

void ExpertExchange::dispatch(const Plan& plan, ConstTensorView rows, TensorView received, const Beside& beside) {
  check_rows("dispatch", rows, total(plan.sent), received, plan.rows());
  group_.group_begin();
  if (!beside.to.empty() || !beside.from.empty()) put_out(plan, beside.from, beside.to);
  if (two_level()) {
    cross(plan, rows);
    hand_on(plan, rows, received);
  } else {
    put_out(plan, rows, received);
    finish_group();
  }
}

void ExpertExchange::combine(const Plan& plan, ConstTensorView rows, TensorView to, const Beside& beside) {
  check_rows("combine", to, total(plan.sent), rows, plan.rows());
  group_.group_begin();
  if (!beside.to.empty() || !beside.from.empty()) put_back(plan, beside.from, beside.to);
  if (two_level()) {
    collect(plan, rows, to);
    cross_back(plan, to);
  } else {
    put_back(plan, rows, to);
    finish_group();
  }
}

// Between nodes, each token once, in the group that is open: what comes stands in its staging, node by node.
void ExpertExchange::cross(const Plan& plan, ConstTensorView rows) {
  const std::int64_t width = row_bytes(rows);
  std::int64_t crossing = 0;
  for (const auto& firsts : plan.firsts) crossing += static_cast<std::int64_t>(firsts.size());
  std::byte* packed = room(staging().packed, crossing * width);
  std::byte* arrived = room(staging().arrived, total(plan.arrivals) * width);
  for (int n = 0; n < nodes(); ++n) {
    const std::byte* begin = packed;
    for (const std::int32_t row : plan.firsts[index(n)]) {
      std::memcpy(packed, row_of(rows, row), index(width));
      packed += width;
    }
    const int relay = n * peers_ + peer();
    if (packed != begin) group_.send(bytes_of(begin, packed - begin), relay);
    const std::int64_t coming = plan.arrivals[index(n)] * width;
    if (coming > 0) group_.recv(bytes_of(arrived, coming), relay);
    arrived += coming;
  }
  finish_group();
}

// Within the node, as often as there are experts: this rank's own rows, and those that came for its neighbours.
void ExpertExchange::hand_on(const Plan& plan, ConstTensorView rows, TensorView received) {
  const std::int64_t width = row_bytes(rows);
  const std::vector<std::int64_t> to = begins(plan.sent);
  const std::vector<std::int64_t> from = begins(plan.received);
  const std::byte* arrived = staging().arrived.data();
  std::byte* packed = room(staging().packed, relayed_rows(plan) * width);
  group_.group_begin();
  for (int n = 0; n < nodes(); ++n) {
    std::size_t repeat = 0;
    for (int q = 0; q < peers_; ++q) {
      const int neighbour = node() * peers_ + q;
      const int source = n * peers_ + q;
      const std::int64_t count = rows_through(plan, n, q);
      const std::byte* run = n == node() ? row_of(rows, to[index(neighbour)]) : packed;
      for (std::int64_t i = 0; n != node() && i < count; ++i, packed += width) {
        std::memcpy(packed, arrived + plan.relayed[index(n)][repeat++] * width, index(width));
      }
      std::byte* target = row_of(received, from[index(source)]);
      if (q == peer()) {
        if (count > 0) std::memcpy(target, run, index(count * width));
        continue;
      }
      const std::int64_t coming = plan.received[index(source)];
      if (count > 0) group_.send(bytes_of(run, count * width), neighbour);
      if (coming > 0) group_.recv(bytes_of(target, coming * width), neighbour);
    }
    arrived += plan.arrivals[index(n)] * width;
  }
  finish_group();
}

// hand_on backward, in the group that is open: results of this node's experts come to the relays of their sources, in
// the order of the source's rows. Those of other nodes' sources stand in its staging, node by node.
void ExpertExchange::collect(const Plan& plan, ConstTensorView rows, TensorView to) {
  const std::int64_t width = row_bytes(rows);
  const std::vector<std::int64_t> sent = begins(plan.sent);
  const std::vector<std::int64_t> received = begins(plan.received);
  std::byte* arrived = room(staging().arrived, relayed_rows(plan) * width);
  for (int n = 0; n < nodes(); ++n) {
    for (int q = 0; q < peers_; ++q) {
      const int neighbour = node() * peers_ + q;
      const int source = n * peers_ + q;
      const std::int64_t count = rows_through(plan, n, q);
      std::byte* target = n == node() ? row_of(to, sent[index(neighbour)]) : arrived;
      if (n != node()) arrived += count * width;
      const std::byte* results = row_of(rows, received[index(source)]);
      if (q == peer()) {
        if (count > 0) std::memcpy(target, results, index(count * width));
        continue;
      }
      const std::int64_t own = plan.received[index(source)];
      if (own > 0) group_.send(bytes_of(results, own * width), neighbour);
      if (count > 0) group_.recv(bytes_of(target, count * width), neighbour);
    }
  }
  finish_group();
}

void ExpertExchange::cross_back(const Plan& plan, TensorView to) {
  const std::int64_t width = row_bytes(to);
  const std::vector<std::int64_t> sent = begins(plan.sent);
  const std::byte* arrived = staging().arrived.data();
  group_.group_begin();
  for (int n = 0; n < nodes(); ++n) {
    if (n == node()) continue;
    const int relay = n * peers_ + peer();
    const std::int64_t going = static_cast<std::int64_t>(plan.relayed[index(n)].size()) * width;
    if (going > 0) group_.send(bytes_of(arrived, going), relay);
    arrived += going;
    const std::int64_t begin = sent[index(n * peers_)];
    const std::int64_t count = sent[index((n + 1) * peers_)] - begin;
    if (count > 0) group_.recv(bytes_of(row_of(to, begin), count * width), relay);
  }
  finish_group();
}

// Rows that come to the sender's place in this node for its rank `q`, from node `n`.
std::int64_t ExpertExchange::rows_through(const Plan& plan, int n, int q) const {
  return n == node() ? plan.sent[index(node() * peers_ + q)] : plan.hand_ons[index(n)][index(q)];
}

int ranks_per_node(Communicator& group, std::string_view host) {
  std::int64_t mine = static_cast<std::int64_t>(XXH3_64bits(host.data(), host.size()));
  std::vector<std::int64_t> hosts(index(group.size()));
  group.all_gather(view_of(hosts.data(), DType::i64, {group.size()}), view_of(&mine, DType::i64, {1}));
  const auto first =
      std::find_if(hosts.begin(), hosts.end(), [&](std::int64_t host_of) { return host_of != hosts[0]; });
  const auto length = static_cast<std::size_t>(first - hosts.begin());
  if (length == hosts.size() || hosts.size() % length != 0) return 0;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const bool begins_node = i % length == 0;
    if (!begins_node && hosts[i] != hosts[i - 1]) return 0;
    if (begins_node && std::find(hosts.begin(), hosts.begin() + static_cast<std::ptrdiff_t>(i), hosts[i]) !=
                           hosts.begin() + static_cast<std::ptrdiff_t>(i)) {
      return 0;
    }
  }
  return static_cast<int>(length);
}

}  // namespace shoestring
