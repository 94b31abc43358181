// SPDX-License-Identifier: Apache-2.0
#include "storage/store/database.h"

#include "base/result.h"

namespace haneul::storage {
namespace {

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { ::sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

ErrorCode code_of(int sqlite) {
  switch (sqlite & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::kBusy;
    case SQLITE_FULL:
      return ErrorCode::kNoSpace;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::kCorrupt;
    case SQLITE_CONSTRAINT:
      return ErrorCode::kExists;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

std::string Database::Row::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(::sqlite3_column_text(statement_, column));
  return text != nullptr ? std::string(text, static_cast<size_t>(::sqlite3_column_bytes(statement_, column)))
                         : "";
}

int64_t Database::Row::number(int column) const {
  return ::sqlite3_column_int64(statement_, column);
}

Error Database::failure(const char* what) const {
  return make_error(code_of(::sqlite3_extended_errcode(handle_)), "{}: {}: {}", file_.string(), what,
                    ::sqlite3_errmsg(handle_));
}

Result<std::unique_ptr<Database>> Database::open(const std::filesystem::path& file) {
  sqlite3* handle = nullptr;
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  int opened = ::sqlite3_open_v2(file.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database(new Database(handle, file));
  if (opened != SQLITE_OK) return database->failure("opening the catalog");
  ::sqlite3_busy_timeout(handle, 5000);
  for (const char* sql : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"}) {
    TRY(database->query(sql, {}, [](const Row&) {}));
  }
  return database;
}

Database::~Database() {
  ::sqlite3_close(handle_);
}

Status Database::run(const char* sql, const std::vector<Value>& values) {
  return query(sql, values, [](const Row&) {});
}

Status Database::query(const char* sql, const std::vector<Value>& values,
                       const std::function<void(const Row&)>& row) {
  sqlite3_stmt* raw = nullptr;
  if (::sqlite3_prepare_v2(handle_, sql, -1, &raw, nullptr) != SQLITE_OK) return failure(sql);
  Statement statement(raw);
  int index = 1;
  for (const Value& value : values) {
    int bound = SQLITE_OK;
    if (const auto* number = std::get_if<int64_t>(&value)) {
      bound = ::sqlite3_bind_int64(raw, index, *number);
    } else {
      const auto& text = std::get<std::string>(value);
      bound = ::sqlite3_bind_text(raw, index, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
    }
    if (bound != SQLITE_OK) return failure(sql);
    ++index;
  }
  for (;;) {
    int step = ::sqlite3_step(raw);
    if (step == SQLITE_DONE) return {};
    if (step != SQLITE_ROW) return failure(sql);
    row(Row(raw));
  }
}

Status Database::transaction(const std::function<Status()>& work) {
  TRY(run("BEGIN IMMEDIATE"));
  Status done = work();
  if (done.ok()) done = run("COMMIT");
  if (!done.ok()) (void)run("ROLLBACK");
  return done;
}

}  // namespace haneul::storage
