// Launching a kernel: checks the configuration and brings the grid's blocks in, a few at a time.
#pragma once
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "scheduler.h"

namespace simt {

inline constexpr unsigned kMaxCluster = 8;  // blocks that any device with clusters can run

struct Config {
  dim3 grid{}, block{};
  size_t dynamic_shared = 0;          // bytes
  unsigned seed = 0;                  // of the order: 0 natural, 1 reversed, >= 2 drawn
  unsigned resident_blocks = 1;       // that many run interleaved, or that many clusters
  bool exited_threads_count = false;  // as having arrived, as on the hardware; else waiting for them is a fault
  unsigned cluster = 1;               // blocks of a cluster, neighbours along x

  unsigned threads() const { return block.x * block.y * block.z; }
};

class Launcher {
 public:
  /// Runs `call(closure)` once for every thread of the grid.
  void run(const Config& config, void (*call)(void*), void* closure) {
    check(config);
    call_ = call;
    closure_ = closure;
    grid_dim = config.grid;
    block_dim = config.block;
    host_fiber.race_id = tsan::current();
    static_shared_ = find_static_shared();
    in_place_ = nullptr;
#if SIMT_ASAN
    __sanitizer_set_death_callback(print_place);
#endif
    try {
      run_blocks(config);
    } catch (...) {
      abandon();
      throw;
    }
    tsan::ended.finish_launch();
  }

 private:
  static void check(const Config& c) {
    const auto outside = [](const dim3& d, unsigned x, unsigned y, unsigned z) {
      return d.x - 1 >= x || d.y - 1 >= y || d.z - 1 >= z;  // 0 - 1 wraps
    };
    if (current) fail("invalid launch", "from within a kernel");
    if (outside(c.grid, 0x7fffffff, 65535, 65535) || uint64_t{c.grid.x} * c.grid.y * c.grid.z > 0x7fffffff)
      fail("invalid launch", "grid " + text(c.grid));
    if (outside(c.block, 1024, 1024, 64) || c.threads() > 1024) fail("invalid launch", "block " + text(c.block));
    if (c.dynamic_shared > kMaxShared)
      fail("invalid launch", std::to_string(c.dynamic_shared) + " bytes of shared memory");
    if (c.cluster - 1 >= kMaxCluster || c.grid.x % c.cluster != 0)
      fail("invalid launch", "clusters of " + std::to_string(c.cluster) + " blocks in grid " + text(c.grid));
  }

  void run_blocks(const Config& config) {
    Order order(config.seed);
    Scheduler scheduler(order, config.exited_threads_count);
    const unsigned size = config.cluster;
    const std::vector<uint32_t> clusters = order.blocks(config.grid.x * config.grid.y * config.grid.z / size);
    const size_t places = std::min<size_t>(std::max(config.resident_blocks, 1u), clusters.size());
    reserve(places, config);
    size_t next = 0;
    std::vector<size_t> resident;  // slots; place p has those from p * size on
    const auto bring = [&](size_t place, ptrdiff_t at) {
      for (unsigned rank = 0; rank < size; ++rank) {
        start(place * size + rank, config, order, clusters[next] * size + rank);
        resident.insert(resident.begin() + at + rank, place * size + rank);
      }
      clusters_[place].running = size;
      clusters_[place].barriers = 0;
      ++next;
    };
    while (next < places) bring(next, static_cast<ptrdiff_t>(resident.size()));
    for (size_t i = 0; !resident.empty(); ++i) {
      i = order.drawn() ? order.below(static_cast<uint32_t>(resident.size())) : i % resident.size();
      const size_t slot = resident[i];
      bring_in(*slots_[slot]);
      unsigned steps = order.drawn() ? 1 + order.below(16) : ~0u;
      Scheduler::Turn turn;
      do turn = scheduler.turn(*slots_[slot]);
      while (turn == Scheduler::Turn::more && --steps);
      if (turn != Scheduler::Turn::done) continue;
      end(*slots_[slot]);
      resident.erase(resident.begin() + static_cast<ptrdiff_t>(i));
      if (--slots_[slot]->cluster->running == 0 && next < clusters.size())
        bring(slot / size, static_cast<ptrdiff_t>(i));
    }
  }

  void reserve(size_t places, const Config& config) {
    const unsigned threads = config.threads();
    const size_t slots = places * config.cluster;
    stacks_.reserve(static_cast<unsigned>(slots) * threads);
    while (slots_.size() < slots) slots_.push_back(std::make_unique<Block>());
    for (auto& block : slots_) {
      block->lanes.resize(threads);
      block->warps.resize((threads + kWarpSize - 1) / kWarpSize);
      block->dynamic_shared = DynamicShared(config.dynamic_shared);
      block->dynamic_begin = block->dynamic_shared.data();
    }
    clusters_.assign(places, {});
    for (size_t slot = 0; slot < slots; ++slot) {
      Cluster& cluster = clusters_[slot / config.cluster];
      slots_[slot]->cluster = &cluster;
      slots_[slot]->rank = static_cast<unsigned>(cluster.blocks.size());
      cluster.blocks.push_back(slots_[slot].get());
    }
  }

  /// Makes slot's block the grid's block `number`, its threads at the kernel's first line, its memory poisoned.
  void start(size_t slot, const Config& config, const Order& order, uint32_t number) {
    Block& block = *slots_[slot];
    const dim3 &g = config.grid, &b = config.block;
    const unsigned n = config.threads();
    block.index = {number % g.x, number / g.x % g.y, number / g.x / g.y};
    block.alive = n;
    block.dynamic_shared.poison();
    block.static_shared.clear();
    block.active_warps = block.at_cluster_barrier = block.votes = block.burst = 0;
    block.last_borrow = ~0u;
    block.last_warp = order.begin();
    for (unsigned w = 0; w < block.warps.size(); ++w) {
      const unsigned lanes = std::min(kWarpSize, n - w * kWarpSize);
      const unsigned existing = kFullMask >> (kWarpSize - lanes);
      block.warps[w] = {.lanes = &block.lanes[w * kWarpSize],
                        .index = w,
                        .existing = existing,
                        .runnable = existing,
                        .exited = ~existing};
      block.active_warps |= block.warps[w].bit();
    }
    for (unsigned t = 0; t < n; ++t) {
      Lane& lane = block.lanes[t];
      lane.block = &block;
      lane.warp = &block.warps[t / kWarpSize];
      lane.index = t % kWarpSize;
      lane.thread = {t % b.x, t / b.x % b.y, t / b.x / b.y};
      lane.wait = Wait::none;
      prepare_fiber(lane.fiber, stacks_[static_cast<unsigned>(slot) * n + t], thread_main);
      if (tsan::kOn) tsan::set_name(lane.fiber.race_id, "block " + text(block.index) + " thread " + text(lane.thread));
    }
  }

  void end(Block& block) {
    if (block.dynamic_shared.overrun()) fail("shared memory overrun", "block " + text(block.index));
    block.dynamic_shared.retire();
    in_place_ = nullptr;
  }

  /// Puts the block's static shared memory in place; the block that had it there gets a copy to come back with.
  SIMT_NO_TSAN void bring_in(Block& block) {
    block_index = block.index;
    if (in_place_ == &block) return;
    const auto [place, size] = static_shared_;
    if (in_place_) {
      in_place_->static_shared.resize(size);
      copy_unseen(in_place_->static_shared.data(), place, size);
    }
    if (block.static_shared.empty())
      poison_unseen(place, size);
    else
      copy_unseen(place, block.static_shared.data(), size);
    tsan::forget(place, size);
    in_place_ = &block;
  }

  /// After an error: the threads that have not ended never will.
  void abandon() {
    for (auto& block : slots_) {
      for (Lane& lane : block->lanes) {
        if (lane.wait == Wait::exited) continue;
        lane.fences.reset();
        tsan::ended.add(lane.fiber.race_id);
        lane.wait = Wait::exited;
      }
    }
    tsan::ended.finish_launch();
  }

  static void thread_main() {
    fiber_entered();
    const char* fault = nullptr;
    try {
      call_(closure_);
    } catch (const std::exception& e) {
      fault = "exception";
      thrown = e.what();
    }
    give_way(fault ? Wait::failed : Wait::exited, {fault, {}});
  }

#if SIMT_ASAN
  static void print_place() {
    if (!current) return;
    std::fprintf(stderr, "simt: while %s ran\n", text(*current).c_str());
  }
#endif

  inline static void (*call_)(void*) = nullptr;
  inline static void* closure_ = nullptr;

  Stacks stacks_;
  std::vector<std::unique_ptr<Block>> slots_;
  std::vector<Cluster> clusters_;
  Segment static_shared_;
  Block* in_place_ = nullptr;  // whose static shared memory is in place
};

inline Launcher launcher;

/// Runs `kernel(args...)` over the grid; throws simt::Error when the kernel breaks a rule of the machine.
template <class Kernel, class... Args>
void launch(const Config& config, Kernel kernel, Args... args) {
  auto thread = [&] { kernel(args...); };
  launcher.run(config, [](void* closure) { (*static_cast<decltype(thread)*>(closure))(); }, &thread);
}

template <class Kernel, class... Args>
void launch(dim3 grid, dim3 block, size_t dynamic_shared, unsigned seed, Kernel kernel, Args... args) {
  launch(Config{grid, block, dynamic_shared, seed}, kernel, args...);
}

/// What `body` throws, as text that lives until the next call; nullptr if nothing. For callers in other languages.
template <class Body>
const char* error_of(Body body) {
  static std::string message;
  try {
    body();
    return nullptr;
  } catch (const std::exception& e) {
    message = e.what();
    return message.c_str();
  }
}

}  // namespace simt
