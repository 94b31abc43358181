// SPDX-License-Identifier: Apache-2.0
// StoreTest: a store in a folder that goes away, and its volumes as a VMM would open them.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/checked.h"
#include "base/file.h"
#include "storage/store/store.h"
#include "storage/testing/waiting_request.h"
#include "storage/volume/volume.h"
#include "tests/support/files.h"

namespace haneul::storage::testing {

inline bool closed(const std::string&) {
  return false;
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() { open(); }
  void open() {
    store_.reset();
    store_ = open_store("store");
  }
  std::unique_ptr<Store> open_store(const std::string& name, const std::string& key = "key",
                                    std::function<void(const char*)> step = {}) {
    return std::move(Store::open(folder_ / name, {folder_ / key, false, std::move(step)})).value();
  }
  /// The volume's disk, as a VMM would open it.
  static std::unique_ptr<Volume> disk(Store& store, const std::string& id) {
    std::vector<StackDescriptor> layers;
    OpenStack stack = store.open_volume(id).value();
    for (OpenLayer& layer : stack.layers) layers.push_back({std::move(layer.fd), layer.key});
    return open_volume(UniqueFd(), std::move(layers), {}).value();
  }
  static void write(Volume& volume, uint64_t at, std::string text) {
    auto ring = IoRing::create(8).value();
    auto channel = volume.open_channel(*ring);
    auto bytes = std::as_writable_bytes(std::span(text));
    ASSERT_EQ(run(*ring, *channel, BlockOp::kWrite, at, bytes), BlockStatus::kOk);
  }
  static std::string read(Volume& volume, uint64_t at, size_t length) {
    auto ring = IoRing::create(8).value();
    auto channel = volume.open_channel(*ring);
    std::string text(length, '?');
    auto bytes = std::as_writable_bytes(std::span(text));
    EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, at, bytes), BlockStatus::kOk);
    return text;
  }
  void write(const std::string& id, uint64_t at, const std::string& text) {
    write(*disk(*store_, id), at, text);
  }
  std::string read(const std::string& id, uint64_t at, size_t length) {
    return read(*disk(*store_, id), at, length);
  }
  void snapshot(const std::string& volume, const std::string& id) {
    auto prepared = store_->begin_snapshots({{volume, id}}, closed);
    ASSERT_TRUE(prepared.ok()) << prepared.error().message();
    EXPECT_TRUE(prepared->empty());
    Status done = store_->complete_snapshot(id, {});
    ASSERT_TRUE(done.ok()) << done.error().message();
  }
  void create(const std::string& id, uint64_t size, const std::string& from = "", bool encrypted = false) {
    Status made = store_->create_volume({id, size, from, encrypted});
    ASSERT_TRUE(made.ok()) << made.error().message();
  }
  size_t files() const { return haneul::testing::entries_of((folder_ / "store/layers").c_str()); }
  void expect_sound() {
    auto checked = store_->check("", {}, {});
    ASSERT_TRUE(checked.ok()) << checked.error().message();
    for (const auto& entry : checked->faults) {
      ADD_FAILURE() << entry.subject << ": " << entry.fault.where << ": " << entry.fault.what;
    }
  }

  haneul::testing::TempFolder folder_;
  std::unique_ptr<Store> store_;
};

}  // namespace haneul::storage::testing
