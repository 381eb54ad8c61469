// Rows of which an SM's shared memory cannot hold two, on cards with thread block clusters (compute capability 9.0):
// the blocks of a cluster hold the row together, so that it is read once and its gradient written once. As in row.cuh,
// but the lanes of a row run through all blocks of the cluster, in the order of their ranks.
#pragma once
#include "row.cuh"
#include "tiers.h"

#ifdef SIMT_EMULATOR
#define IMAE_CLUSTERS 1
#else
#include <cooperative_groups.h>
#define IMAE_CLUSTERS (__CUDA_ARCH__ >= 900)  // on the host it is 0
#endif

namespace imae {

// Where the blocks leave their sums, at the front of each one's dynamic shared memory.
template <class S>
constexpr size_t kExchangeBytes = 2 * kMaxCluster * sizeof(Part<S>);

#if IMAE_CLUSTERS
class Cluster {
 public:
  explicit __device__ __forceinline__ Cluster(void* exchange) : exchange_(exchange) {
    group_.sync();  // no block writes to another before that one has begun
  }
  __device__ __forceinline__ int rank() const { return static_cast<int>(group_.block_rank()); }
  __device__ __forceinline__ int count() const { return static_cast<int>(group_.num_blocks()); }

  // Each block writes its part to all of them: the row then waits for one barrier, and not for reads from afar as
  // well. `turn` as in across_warps. Nothing is written after the last barrier, so any block may be the first to exit.
  template <class P>
  __device__ __forceinline__ P across(const P& of_block, int turn) const {
    P* part = static_cast<P*>(exchange_) + turn * kMaxCluster;
    if (threadIdx.x < group_.num_blocks())
      *group_.map_shared_rank(part + rank(), static_cast<int>(threadIdx.x)) = of_block;
    group_.sync();  // every block's part is written before any is read
    P all = part[0];
    for (int b = 1; b < count(); ++b) all = merge(all, part[b]);
    return all;
  }

 private:
  cooperative_groups::cluster_group group_ = cooperative_groups::this_cluster();
  void* exchange_;
};
#endif

// For Forward only: what writes no gradient, or has no sums, reads a row once even in chunks.
template <class Job>
__global__ void __launch_bounds__(kRowThreads<256>, kRowBlocks<typename Job::S, 256>)
    cluster_kernel(const __grid_constant__ Job job, int most) {
#if IMAE_CLUSTERS
  IMAE_DYNAMIC_SHARED(bytes);
  walk_rows<256>(job, bytes + kExchangeBytes<typename Job::S>, most, Cluster(bytes));
#else
  __trap();  // never launched: launch.h asks what the kernel was compiled for
#endif
}

}  // namespace imae
