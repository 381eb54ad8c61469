// The state of what runs: threads (lanes), warps, blocks, and the thread whose turn it is.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "fibers.h"
#include "shared_memory.h"
#include "vectors.h"

namespace simt {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

/// Where in the kernel a thread waits, and for what.
struct Site {
  const char* what = "";
  std::source_location at{};

  bool operator==(const Site& o) const {
    return at.line() == o.at.line() && at.column() == o.at.column() &&
           (at.file_name() == o.at.file_name() || std::string_view(at.file_name()) == o.at.file_name());
  }
};

enum class Wait : unsigned char { none, warp, block, cluster, exited, failed };

struct Block;
struct Cluster;
struct Warp;

/// What a warp operation does once all lanes of `mask` have come: fill `result` from `value` and `source`.
using Combine = void (*)(Warp&, unsigned mask);

struct Lane {
  Fiber fiber;
  tsan::Fences fences;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned index = 0;  // in the warp
  uint3 thread{};
  Wait wait = Wait::exited;
  Site site;                  // where it waits
  unsigned mask = 0;          // of the warp operation
  Combine combine = nullptr;  // of the warp operation; none: __syncwarp
  bool vote = false;          // __syncthreads_count and its like

  unsigned bit() const { return 1u << index; }
};

struct Warp {
  Lane* lanes = nullptr;
  unsigned index = 0;                                            // in the block
  unsigned existing = 0, runnable = 0, waiting = 0, exited = 0;  // bits of lanes; `waiting`: at a warp operation
  std::array<uint64_t, kWarpSize> value{}, result{};
  std::array<unsigned char, kWarpSize> source{};

  unsigned bit() const { return 1u << index; }
};

struct Block {
  uint3 index{};
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  unsigned active_warps = 0;          // bits of the warps that have runnable lanes
  unsigned last_warp = 0, burst = 0;  // which had its turn, and for how many steps it keeps it
  unsigned alive = 0, at_cluster_barrier = 0;
  unsigned votes = 0, vote_result = 0;
  Cluster* cluster = nullptr;
  unsigned rank = 0;          // in the cluster
  unsigned last_borrow = ~0;  // the cluster's barriers when another block last got at this one's shared memory,
  Site borrowed;              // and where
  DynamicShared dynamic_shared;
  unsigned char* dynamic_begin = nullptr;
  std::vector<unsigned char> static_shared;  // its copy while another block runs
};

/// Blocks that run at the same time, have barriers in common and reach each other's dynamic shared memory.
struct Cluster {
  std::vector<Block*> blocks;  // by rank
  unsigned running = 0;        // that have not ended
  unsigned barriers = 0;       // that all its threads have passed
};

/// Calls f(i) for each set bit i, lowest first.
template <class F>
void for_each_bit(unsigned set, F f) {
  for (; set; set &= set - 1) f(static_cast<unsigned>(std::countr_zero(set)));
}

inline Lane* current = nullptr;
inline uint3 thread_index{}, block_index{};
inline dim3 block_dim, grid_dim;
inline std::string thrown;  // the text of what a kernel threw

/// Gives the turn back to the scheduler; the thread goes on when it is chosen again.
SIMT_NO_TSAN inline void give_way(Wait wait, Site site) {
  Lane& me = *current;
  me.wait = wait;
  me.site = site;
  switch_fiber(me.fiber, host_fiber, wait == Wait::exited || wait == Wait::failed);
}

/// Ends the launch with an error at this thread; `what` is a string literal.
[[noreturn]] SIMT_NO_TSAN inline void fail_here(const char* what, std::source_location at) {
  give_way(Wait::failed, {what, at});
  __builtin_unreachable();
}

}  // namespace simt
