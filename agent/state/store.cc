// SPDX-License-Identifier: Apache-2.0
#include "agent/state/store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/endian.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr int kSchemaVersion = 1;

Error sqlite_error(sqlite3* db, std::string_view what) {
  int code = ::sqlite3_errcode(db);
  int number = ::sqlite3_system_errno(db);
  // Its own files beside the database do not fit either: it says "disk I/O error" then.
  bool full =
      code == SQLITE_FULL || ((code & 0xff) == SQLITE_IOERR && (number == ENOSPC || number == EDQUOT));
  if (full) return make_error(ErrorCode::kNoSpace, "{}: the disk is full", what);
  ErrorCode kind = code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ErrorCode::kCorrupt
                   : code == SQLITE_BUSY                           ? ErrorCode::kBusy
                                                                   : ErrorCode::kIo;
  return make_error(kind, "{}: {}", what, ::sqlite3_errmsg(db));
}

// A prepared statement, finalised when it goes.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) { ok_ = ::sqlite3_prepare_v2(db, sql, -1, &raw_, nullptr) == 0; }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { ::sqlite3_finalize(raw_); }

  bool ok() const { return ok_; }
  void bind(int index, std::string_view text) {
    ::sqlite3_bind_text64(raw_, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  int step() { return ::sqlite3_step(raw_); }
  std::string text(int column) const {
    const unsigned char* bytes = ::sqlite3_column_text(raw_, column);
    return bytes == nullptr ? ""
                            : std::string(reinterpret_cast<const char*>(bytes),
                                          static_cast<size_t>(::sqlite3_column_bytes(raw_, column)));
  }
  int integer(int column) const { return ::sqlite3_column_int(raw_, column); }

 private:
  sqlite3_stmt* raw_ = nullptr;
  bool ok_ = false;
};

// SQLite takes a file with a damaged header for an empty one in places; ours is checked before it is opened.
Status check_header(const std::filesystem::path& file) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno == ENOENT ? Status() : errno_error("cannot open {}", file.string());
  uint64_t size = TRY(file_size(fd.get()));
  if (size == 0) return {};
  std::array<std::byte, 100> header{};
  if (size < header.size()) {
    return make_error(ErrorCode::kCorrupt, "the state file {} is cut short ({} bytes)", file.string(), size);
  }
  TRY(read_exact_at(fd.get(), 0, header));
  if (std::memcmp(header.data(), "SQLite format 3", 16) != 0) {
    return make_error(ErrorCode::kCorrupt, "the state file {} is not a database", file.string());
  }
  return {};
}

}  // namespace

Batch& Batch::put(std::string_view kind, std::string_view id, std::string value) {
  changes_.push_back({std::string(kind), std::string(id), std::move(value), false});
  return *this;
}

Batch& Batch::add(Change change) {
  changes_.push_back(std::move(change));
  return *this;
}

Batch& Batch::remove(std::string_view kind, std::string_view id) {
  changes_.push_back({std::string(kind), std::string(id), "", true});
  return *this;
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::filesystem::path& file) {
  TRY(check_header(file));
  sqlite3* db = nullptr;
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  int opened = ::sqlite3_open_v2(file.c_str(), &db, flags, nullptr);
  std::unique_ptr<SqliteStore> store(new SqliteStore(db));
  if (opened != SQLITE_OK)
    return sqlite_error(db, fmt::format("cannot open the state file {}", file.string()));
  ::sqlite3_busy_timeout(db, 5000);
  // Until it is known to be whole, nothing is to write to it: not even the checkpoint when it is closed.
  ::sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  TRY(store->check(file));
  TRY(store->prepare_schema());
  ::sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
  return store;
}

SqliteStore::~SqliteStore() {
  ::sqlite3_close(db_);
}

Status SqliteStore::execute(const char* sql) {
  if (::sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return sqlite_error(db_, "the state file");
  return {};
}

Status SqliteStore::check(const std::filesystem::path& file) {
  Statement statement(db_, "PRAGMA quick_check(1)");
  int step = statement.ok() ? statement.step() : SQLITE_ERROR;
  if (step != SQLITE_ROW)
    return sqlite_error(db_, fmt::format("the state file {} is damaged", file.string()));
  std::string verdict = statement.text(0);
  if (verdict == "ok") return {};
  return make_error(ErrorCode::kCorrupt, "the state file {} is damaged: {}", file.string(), verdict);
}

Status SqliteStore::prepare_schema() {
  TRY(execute("PRAGMA journal_mode=WAL"));
  TRY(execute("PRAGMA synchronous=FULL"));
  int version = 0;
  {
    Statement statement(db_, "PRAGMA user_version");
    if (!statement.ok() || statement.step() != SQLITE_ROW)
      return sqlite_error(db_, "the state file's version");
    version = statement.integer(0);
  }
  if (version > kSchemaVersion) {
    return make_error(ErrorCode::kCorrupt,
                      "the state file is of version {}, made by a newer haneuld than this one ({})", version,
                      kSchemaVersion);
  }
  if (version == kSchemaVersion) return {};
  TRY(
      execute("BEGIN IMMEDIATE;"
              "CREATE TABLE objects(kind TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL,"
              " PRIMARY KEY(kind, id)) WITHOUT ROWID;"
              "PRAGMA user_version=1;"
              "COMMIT"));
  return {};
}

Result<std::vector<StateStore::Object>> SqliteStore::list(std::string_view kind) {
  std::scoped_lock lock(mutex_);
  Statement statement(db_, "SELECT id, value FROM objects WHERE kind = ?1 ORDER BY id");
  if (!statement.ok()) return sqlite_error(db_, "reading the state");
  statement.bind(1, kind);
  std::vector<Object> objects;
  int step = 0;
  while ((step = statement.step()) == SQLITE_ROW) objects.push_back({statement.text(0), statement.text(1)});
  if (step != SQLITE_DONE) return sqlite_error(db_, "reading the state");
  return objects;
}

Status SqliteStore::commit(const Batch& batch) {
  if (batch.changes().empty()) return {};
  std::scoped_lock lock(mutex_);
  TRY(execute("BEGIN IMMEDIATE"));
  Status status = apply(batch);
  if (status.ok()) status = execute("COMMIT");
  if (!status.ok()) ::sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return status;
}

Status SqliteStore::apply(const Batch& batch) {
  for (const Batch::Change& change : batch.changes()) {
    Statement statement(db_, change.removed ? "DELETE FROM objects WHERE kind = ?1 AND id = ?2"
                                            : "INSERT OR REPLACE INTO objects VALUES(?1, ?2, ?3)");
    if (!statement.ok()) return sqlite_error(db_, "writing the state");
    statement.bind(1, change.kind);
    statement.bind(2, change.id);
    if (!change.removed) statement.bind(3, change.value);
    if (statement.step() != SQLITE_DONE) return sqlite_error(db_, "writing the state");
  }
  return {};
}

}  // namespace haneul::agent
