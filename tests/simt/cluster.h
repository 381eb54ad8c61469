// Clusters of blocks, by the names that CUDA's <cooperative_groups.h> has for them.
#pragma once
#include <cstdint>

#include "block.h"
#include "warp.h"

namespace simt {

/// Where `p`, in the caller's dynamic shared memory, lies in that of another block of its cluster.
SIMT_NO_TSAN inline void* map_shared_rank(const void* p, unsigned rank, std::source_location at) {
  const Block& mine = *current->block;
  const Cluster& cluster = *mine.cluster;
  const size_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(mine.dynamic_begin);
  if (offset >= mine.dynamic_shared.size()) fail_here("an address outside dynamic shared memory", at);
  if (rank >= cluster.blocks.size()) fail_here("a rank that the cluster does not have", at);
  Block& other = *cluster.blocks[rank];
  if (&other != &mine) {
    if (cluster.barriers == 0) fail_here("access to a block that may not have begun", at);
    if (other.alive == 0) fail_here("access to a block that has exited", at);
    other.last_borrow = cluster.barriers;
    other.borrowed = {"map_shared_rank", at};
  }
  return other.dynamic_begin + offset;
}

SIMT_NO_TSAN inline unsigned cluster_rank() { return current->block->rank; }
SIMT_NO_TSAN inline unsigned cluster_size() { return static_cast<unsigned>(current->block->cluster->blocks.size()); }

}  // namespace simt

namespace cooperative_groups {

struct cluster_group {
  static unsigned block_rank() { return simt::cluster_rank(); }
  static unsigned num_blocks() { return simt::cluster_size(); }
  static void sync(SIMT_AT) { simt::give_way(simt::Wait::cluster, {"cluster_group::sync", at}); }
  template <class T>
  static T* map_shared_rank(T* p, int rank, SIMT_AT) {
    return static_cast<T*>(simt::map_shared_rank(p, static_cast<unsigned>(rank), at));
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
