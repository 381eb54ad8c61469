// Device memory that one call needs for itself while its rows become one loss.
#pragma once
#include "../rows.h"

namespace imae {

// Of a block's or the whole grid's rows: sums of the value, of the row's weights times the example weight, and of the
// row's weights.
struct Totals {
  double value, example_weight, targets;
};

constexpr int kMaxBlocks = 2048;      // of a forward kernel
constexpr int kMaxCountBlocks = 256;  // of the kernel that counts the targets

// Uninitialised. It is allocated for each call, so that calls on other streams and replays of a captured graph never
// share it, and the ticket is zeroed by an earlier launch on the stream.
struct Workspace {
  Totals part[kMaxBlocks];
  double counts[kMaxCountBlocks];
  unsigned ticket;
};

}  // namespace imae
