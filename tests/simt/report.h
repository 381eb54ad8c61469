// What went wrong, in words that name the source line, the block and the thread.
#pragma once
#include <cstdio>
#include <map>
#include <span>
#include <stdexcept>
#include <string>

#include "block.h"

namespace simt {

/// Thrown by simt::launch. Its text begins with the kind of fault: "simt: divergent barrier: ...".
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class Index>  // uint3 or dim3
std::string text(const Index& v)
  requires requires { v.z; }
{
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

inline std::string text(const Site& site) {
  const std::string file = site.at.file_name();
  return std::string(site.what) + " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.at.line());
}

inline std::string text(const Lane& lane) {
  return "block " + text(lane.block->index) + " thread " + text(lane.thread) + " (lane " + std::to_string(lane.index) +
         " of warp " + std::to_string(lane.warp->index) + ")";
}

inline std::string hex(unsigned mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "0x%08x", mask);
  return digits;
}

using Blocks = std::span<Block* const>;

[[noreturn]] inline void fail(const std::string& kind, const std::string& what) {
  throw Error("simt: " + kind + ": " + what);
}

[[noreturn]] inline void fail(const std::string& kind, const Lane& lane, const std::string& what) {
  fail(kind, text(lane.site) + ", " + text(lane) + (what.empty() ? "" : ": " + what));
}

/// "31 in __shfl_sync at a.cuh:7, the first block (0,0,0) thread (0,0,0) (lane 0 of warp 0); 1 exited, ..."
inline std::string waiting_sites(Blocks blocks) {
  struct Group {
    unsigned count = 0;
    const Lane* first = nullptr;
  };
  std::map<std::string, Group> groups;
  for (const Block* block : blocks) {
    for (const Lane& lane : block->lanes) {
      Group& g = groups[lane.wait == Wait::exited ? " exited" : " in " + text(lane.site)];
      if (g.count++ == 0) g.first = &lane;
    }
  }
  std::string all;
  for (const auto& [where, g] : groups)
    all += (all.empty() ? "" : "; ") + std::to_string(g.count) + where + ", the first " + text(*g.first);
  return all;
}

/// Names the cause if two of the warp's lanes wait for each other in vain.
inline void fail_if_crossed(const Warp& warp) {
  for_each_bit(warp.waiting, [&](unsigned i) {
    const Lane& lane = warp.lanes[i];
    for_each_bit(lane.mask & warp.waiting, [&](unsigned j) {
      const Lane& other = warp.lanes[j];
      if (!(other.site == lane.site))
        fail("different warp operations meet", lane,
             "it waits for " + text(other) + ", which is in " + text(other.site));
      if (other.mask != lane.mask)
        fail("different masks meet", lane,
             "its mask is " + hex(lane.mask) + ", that of " + text(other) + " is " + hex(other.mask));
    });
  });
}

/// Names the cause when no thread of `blocks`, some of which wait at a barrier of theirs, can go on.
[[noreturn]] inline void fail_stuck(Blocks blocks, Wait barrier) {
  const Lane* first = nullptr;
  const Lane* odd = nullptr;  // at another barrier than the first
  bool all = true;            // who have not exited are at a barrier
  for (const Block* block : blocks) {
    for (const Warp& warp : block->warps) fail_if_crossed(warp);
    for (const Lane& lane : block->lanes) {
      if (lane.wait == Wait::exited) continue;
      if (lane.wait != barrier) {
        all = false;
        continue;
      }
      if (!first) first = &lane;
      if (!(lane.site == first->site)) odd = &lane;
    }
  }
  if (all && odd) fail("divergent barrier", *first, "but " + text(*odd) + " is in " + text(odd->site));
  if (all) fail("barrier after exit", *first, waiting_sites(blocks));
  fail("deadlock", waiting_sites(blocks));
}

}  // namespace simt
