// Lets the threads of a block take their turns: those that wait for each other go on together, and those that wait
// in vain are reported. Runs on the fiber that called simt::launch.
#pragma once
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "block.h"
#include "order.h"
#include "report.h"

namespace simt {

class Scheduler {
 public:
  Scheduler(Order& order, bool exited_threads_count) : order_(order), exited_count_(exited_threads_count) {}

  enum class Turn { more, pause, done };

  /// Every runnable thread of one warp takes a step: to its next synchronisation or atomic, or to its end.
  /// `pause`: a good moment for another resident block.
  Turn turn(Block& block) {
    if (block.active_warps == 0) {
      if (block.alive == 0) return Turn::done;
      Block* const alone[] = {&block};
      if (block.at_cluster_barrier == 0)
        release_barrier(alone, Wait::block);
      else if (stands_still(*block.cluster))
        release_barrier(block.cluster->blocks, Wait::cluster);
      return Turn::pause;
    }
    if (block.burst == 0 || !(block.active_warps >> block.last_warp & 1)) {
      block.last_warp = order_.pick(block.active_warps, block.last_warp);
      block.burst = order_.burst();
    }
    --block.burst;
    Warp& warp = block.warps[block.last_warp];
    const uint64_t yields = yields_;
    order_.each(warp.runnable, [&](unsigned i) {
      resume(warp.lanes[i]);
      settle(warp.lanes[i]);
    });
    if (yields_ == yields) return Turn::more;
    block.burst = 0;
    block.last_warp = order_.after(block.last_warp);  // whoever spins on an atomic must not keep the others waiting
    return Turn::pause;
  }

 private:
  SIMT_NO_TSAN static void resume(Lane& lane) {
    current = &lane;
    thread_index = lane.thread;
    switch_fiber(host_fiber, lane.fiber);
    current = nullptr;
  }

  void settle(Lane& lane) {
    Warp& warp = *lane.warp;
    Block& block = *lane.block;
    if (lane.wait == Wait::failed) {
      tsan::order(lane.fiber.race_id, host_fiber.race_id);
      fail("fault", lane, std::exchange(thrown, {}));
    }
    if (lane.wait == Wait::none) {
      if (++yields_ > kMaxYields)
        fail("livelock", "nothing but atomics and fences happens: " + waiting_sites(block.cluster->blocks));
      return;
    }
    yields_ = 0;
    warp.runnable &= ~lane.bit();
    if (warp.runnable == 0) block.active_warps &= ~warp.bit();
    if (lane.wait == Wait::warp) {
      arrive(warp, lane);
    } else if (lane.wait == Wait::block) {
      block.votes += lane.vote;
    } else if (lane.wait == Wait::cluster) {
      ++block.at_cluster_barrier;
    } else {
      exit(warp, lane);
    }
  }

  void arrive(Warp& warp, Lane& lane) {
    warp.waiting |= lane.bit();
    if (!(lane.mask & lane.bit())) fail("calling lane not in mask", lane, "the mask is " + hex(lane.mask));
    check_exited(warp, lane);
    complete_if_all_came(warp, lane);
  }

  void exit(Warp& warp, Lane& lane) {
    warp.exited |= lane.bit();
    if (--lane.block->alive == 0) check_borrowed(lane);
    lane.fences.reset();
    tsan::ended.add(lane.fiber.race_id);
    for_each_bit(warp.waiting, [&](unsigned i) {
      if (!(warp.lanes[i].mask & lane.bit())) return;
      check_exited(warp, warp.lanes[i]);
      if (warp.waiting >> i & 1) complete_if_all_came(warp, warp.lanes[i]);
    });
  }

  /// Only a barrier of the cluster tells the last thread of a block that nobody uses its shared memory any more.
  static void check_borrowed(const Lane& lane) {
    const Block& block = *lane.block;
    if (block.last_borrow != block.cluster->barriers) return;
    fail("early exit", text(lane) + " is the block's last, and no barrier of the cluster has followed " +
                           text(block.borrowed) + " in another block");
  }

  void check_exited(const Warp& warp, const Lane& lane) const {
    const unsigned gone = lane.mask & warp.exited & (exited_count_ ? ~warp.existing : kFullMask);
    if (gone == 0) return;
    const int i = std::countr_zero(gone);
    fail("mask names a missing lane", lane, "lane " + std::to_string(i) + " has exited or does not exist");
  }

  /// Lanes of one mask go on together once all stand at the same place.
  void complete_if_all_came(Warp& warp, Lane& lane) {
    const unsigned group = lane.mask & ~warp.exited;
    if (group & ~warp.waiting) return;
    bool same = true;
    for_each_bit(
        group, [&](unsigned i) { same = same && warp.lanes[i].mask == lane.mask && warp.lanes[i].site == lane.site; });
    if (!same) return;  // legal while others may still come; fail_stuck tells when none can
    if (lane.combine) {
      for_each_bit(group, [&](unsigned i) {
        const unsigned source = warp.source[i];
        if (!(group >> source & 1))
          fail("source lane not in mask", warp.lanes[i], "lane " + std::to_string(source) + " of " + hex(lane.mask));
      });
      lane.combine(warp, group);
    } else {
      fibers_.clear();
      for_each_bit(group, [&](unsigned i) { fibers_.push_back(warp.lanes[i].fiber.race_id); });
      tsan::join(fibers_);
    }
    warp.waiting &= ~group;
    warp.runnable |= group;
    lane.block->active_warps |= warp.bit();
  }

  /// Whether no block of the cluster gets any further before the cluster's barrier.
  static bool stands_still(const Cluster& cluster) {
    for (const Block* block : cluster.blocks)
      if (block->active_warps != 0 || (block->alive != 0 && block->at_cluster_barrier == 0)) return false;
    return true;
  }

  /// All threads of `blocks` have come to `barrier`, or never will.
  void release_barrier(Blocks blocks, Wait barrier) {
    const Site* site = nullptr;
    fibers_.clear();
    for (const Block* block : blocks) {
      for (const Lane& lane : block->lanes) {
        if (lane.wait == Wait::exited && exited_count_) continue;
        if (lane.wait != barrier || (site && !(lane.site == *site))) fail_stuck(blocks, barrier);
        site = &lane.site;
        fibers_.push_back(lane.fiber.race_id);
      }
    }
    tsan::join(fibers_);
    if (barrier == Wait::cluster) ++blocks.front()->cluster->barriers;
    for (Block* block : blocks) {
      block->vote_result = block->votes;
      block->votes = block->at_cluster_barrier = 0;
      block->burst = 0;
      block->last_warp = order_.begin();
      for (Warp& warp : block->warps) {
        warp.runnable = warp.existing & ~warp.exited;
        if (warp.runnable) block->active_warps |= warp.bit();
      }
    }
  }

  static constexpr uint64_t kMaxYields = 5'000'000;  // in a row, with no thread doing anything else

  Order& order_;
  const bool exited_count_;
  uint64_t yields_ = 0;
  std::vector<tsan::Fiber> fibers_;
};

}  // namespace simt
