// The package's CUDA kernels, dispatch included, in the emulator: as a library for kernels.py, and with main() for the
// sanitizers (kernels_main.cpp). What the operators do for tensors, kernels.py does for arrays.
#include "kernels_library.h"

SIMT_EXPORT const char* run_forward(const imae_simt::ForwardCall* call) {
  return simt::error_of([&] { imae_simt::forward(*call); });
}

SIMT_EXPORT const char* run_backward(const imae_simt::BackwardCall* call) {
  return simt::error_of([&] { imae_simt::backward(*call); });
}

SIMT_EXPORT const char* run_scale(const imae_simt::ScaleCall* call) {
  return simt::error_of([&] { imae_simt::scale(*call); });
}

SIMT_EXPORT const char* run_binary(const imae_simt::BinaryCall* call) {
  return simt::error_of([&] { imae_simt::binary(*call); });
}

SIMT_EXPORT const char* run_dense(const imae_simt::DenseCall* call) {
  return simt::error_of([&] { imae_simt::dense(*call); });
}

SIMT_EXPORT const char* run_mixed(const imae_simt::MixedCall* call) {
  return simt::error_of([&] { imae_simt::mixed(*call); });
}

SIMT_EXPORT const char* run_describe(const imae_simt::DescribeCall* call) {
  return simt::error_of([&] { imae_simt::describe(*call); });
}

// how many blocks would hold a row
SIMT_EXPORT int cluster_of(const imae_simt::RowsCall* call) {
  imae::Rows rows;
  if (!imae_simt::fill(*call, rows)) return -1;
  return imae::blocks_to_hold(imae::packs_of(rows), imae_simt::Launcher(call->machine).card());
}

// the tier that a call would take; -1: its rows are not read in place
SIMT_EXPORT int tier_of(const imae_simt::RowsCall* call) {
  imae::Rows rows;
  if (!imae_simt::fill(*call, rows) || !imae::reads_in_place(rows)) return -1;
  const imae::Card card = imae_simt::Launcher(call->machine).card();
  return static_cast<int>(imae::choose_tier(rows, card, std::getenv("IMAE_EXT_TIER")));
}
