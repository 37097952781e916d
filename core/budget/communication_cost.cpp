#include "core/budget/communication_cost.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// What collectives reach of a link's rate (NCCL's bus bandwidth on NVLink and on 8 rails; DeepEP reports 153 to 158 of
// 200 GB/s inside a node and 43 to 58 of 50 GB/s between nodes).
constexpr double kLinkShare = 0.75;

}  // namespace

CommunicationCost::CommunicationCost(const Hardware& hardware, int devices)
    : hardware_(hardware), per_node_(std::max(1, static_cast<int>(hardware.devices_per_node))) {
  if (devices > 1 && per_node_ > 1 && hardware.peer_bytes_per_second <= 0) {
    fail(ExitCode::bad_recipe, "{} devices of {}.hardware must talk inside a node: give link.peer_bandwidth there",
         devices, hardware.name);
  }
  if (devices > per_node_ && hardware.network_bytes_per_second <= 0) {
    fail(ExitCode::bad_recipe,
         "{} devices of {}.hardware stand in nodes of {}: give link.network_bandwidth there (or link.devices_per_node)",
         devices, hardware.name, per_node_);
  }
}

int CommunicationCost::members_per_node(const DeviceGroup& group) const {
  return std::clamp(per_node_ / std::max(1, group.stride), 1, group.size);
}

int CommunicationCost::nodes_of(const DeviceGroup& group) const {
  const int local = members_per_node(group);
  return (group.size + local - 1) / local;
}

double CommunicationCost::gather_seconds(const DeviceGroup& group, double bytes) const {
  if (group.size <= 1) return 0;
  const int local = members_per_node(group);
  const bool inside = local == group.size;
  const double peer = hardware_.peer_bytes_per_second * kLinkShare;
  const double network = hardware_.network_bytes_per_second * kLinkShare * local;
  const double rate = inside ? peer : local > 1 ? std::min(peer, network) : network;
  const double latency = inside ? hardware_.peer_latency_seconds * group.size
                                : hardware_.peer_latency_seconds * local +
                                      hardware_.network_latency_seconds * (static_cast<double>(group.size) / local);
  return bytes * (group.size - 1) / group.size / rate + latency;
}

double CommunicationCost::exchange_seconds(const DeviceGroup& group, double bytes, double copies,
                                           double node_copies) const {
  if (group.size <= 1) return 0;
  const int local = members_per_node(group);
  const double nodes = static_cast<double>(group.size) / local;
  const double peer = hardware_.peer_bytes_per_second * kLinkShare;
  const double inside = bytes * copies * (group.size - 1) / group.size / std::max(peer, 1.0);
  if (nodes <= 1) return inside + hardware_.peer_latency_seconds;
  // Of `copies` drawn from all nodes, those nodes that get any, limited by the routing; one's own costs nothing.
  double reached = nodes * (1 - std::pow(1 - 1 / nodes, copies));
  reached = std::min(reached, node_copies);
  const double crossing = bytes * reached * (nodes - 1) / nodes;
  const double network = crossing / (hardware_.network_bytes_per_second * kLinkShare);
  return std::max(network, local > 1 ? inside : 0) + hardware_.network_latency_seconds;
}

double CommunicationCost::send_seconds(int stride, double bytes) const {
  const bool inside = stride < per_node_;
  const double rate = inside ? hardware_.peer_bytes_per_second : hardware_.network_bytes_per_second;
  const double latency = inside ? hardware_.peer_latency_seconds : hardware_.network_latency_seconds;
  return rate > 0 ? bytes / (rate * kLinkShare) + latency : 0;
}

}  // namespace shoestring
