// SPDX-License-Identifier: Apache-2.0
// Database: the little of SQLite that the catalog needs. Write-ahead log, synchronous=FULL: what a
// transaction committed is there after a power loss.
//
// Threads   one at a time; the store's lock guards it.
// Errors    kCorrupt for a file that is no sound database, kBusy if another process has it, kNoSpace, kIo.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"

namespace haneul::storage {

class Database {
 public:
  static Result<std::unique_ptr<Database>> open(const std::filesystem::path& file);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  using Value = std::variant<int64_t, std::string>;
  /// One statement, with values for its question marks.
  Status run(const char* sql, const std::vector<Value>& values = {});
  /// `row` is called for each row, with its columns.
  class Row {
   public:
    explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
    std::string text(int column) const;
    int64_t number(int column) const;

   private:
    sqlite3_stmt* statement_;
  };
  Status query(const char* sql, const std::vector<Value>& values, const std::function<void(const Row&)>& row);
  /// All of `work`, or nothing of it.
  Status transaction(const std::function<Status()>& work);

 private:
  Database(sqlite3* handle, std::filesystem::path file) : handle_(handle), file_(std::move(file)) {}
  Error failure(const char* what) const;

  sqlite3* handle_;
  std::filesystem::path file_;
};

}  // namespace haneul::storage
