// SPDX-License-Identifier: Apache-2.0
// StateStore: what the daemon must not forget, as JSON objects by kind and id. Changes are committed in
// batches, each wholly or not at all, and are on the disk when commit() returns.
//
// SqliteStore keeps them in one file (WAL, synchronous=FULL). The interface is narrow, so that a store shared
// by several machines can take its place.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "agent/ops/shape.h"
#include "base/result.h"

struct sqlite3;

namespace haneul::agent {

/// Puts and removals that happen together.
class Batch {
 public:
  Batch& put(std::string_view kind, std::string_view id, std::string value);
  Batch& remove(std::string_view kind, std::string_view id);

  struct Change {
    std::string kind;
    std::string id;
    std::string value;
    bool removed = false;
  };
  Batch& add(Change change);
  const std::vector<Change>& changes() const { return changes_; }

 private:
  std::vector<Change> changes_;
};

class StateStore {
 public:
  virtual ~StateStore() = default;
  struct Object {
    std::string id;
    std::string value;
  };
  /// All objects of a kind, by id.
  virtual Result<std::vector<Object>> list(std::string_view kind) = 0;
  virtual Status commit(const Batch& batch) = 0;
};

/// Thread-safe.
class SqliteStore : public StateStore {
 public:
  /// Opens or makes the file. One that is damaged, or of a newer version, is kCorrupt and stays untouched.
  static Result<std::unique_ptr<SqliteStore>> open(const std::filesystem::path& file);
  ~SqliteStore() override;

  Result<std::vector<Object>> list(std::string_view kind) override;
  Status commit(const Batch& batch) override;

 private:
  explicit SqliteStore(sqlite3* db) : db_(db) {}
  Status check(const std::filesystem::path& file);
  Status prepare_schema();
  Status execute(const char* sql);
  Status apply(const Batch& batch);

  std::mutex mutex_;
  sqlite3* db_;
};

}  // namespace haneul::agent
