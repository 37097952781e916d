// What messages between the devices of one group take. A group has a level: within a node, or over the network; over
// the network a ring is as wide as the network cards of those members that share a node.
#pragma once

#include "core/budget/hardware.h"

namespace shoestring {

/// `size` devices that talk to each other, `stride` ranks apart: neighbours on the innermost axis have stride 1.
struct DeviceGroup {
  int size = 1;
  int stride = 1;
};

class CommunicationCost {
 public:
  /// Throws Error(bad_recipe) where `devices` of this hardware must talk and its file has no link for it.
  CommunicationCost(const Hardware& hardware, int devices);

  /// Seconds in which each member gets the other members' shares of `bytes`; the same to reduce and scatter them.
  double gather_seconds(const DeviceGroup& group, double bytes) const;
  double all_reduce_seconds(const DeviceGroup& group, double bytes) const { return 2 * gather_seconds(group, bytes); }
  /// `bytes` from each member, evenly over all; `node_copies`: to how many other nodes one token's bytes go at most.
  double exchange_seconds(const DeviceGroup& group, double bytes, double copies, double node_copies) const;
  /// On how many nodes a group stands.
  int nodes_of(const DeviceGroup& group) const;
  /// From one stage to the next, `stride` ranks on.
  double send_seconds(int stride, double bytes) const;

 private:
  int members_per_node(const DeviceGroup& group) const;

  const Hardware& hardware_;
  int per_node_;
};

}  // namespace shoestring
