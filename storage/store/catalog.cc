// SPDX-License-Identifier: Apache-2.0
#include "storage/store/catalog.h"

namespace haneul::storage {
namespace {

constexpr int64_t kVersion = 2;
constexpr const char* kTables[] = {
    "CREATE TABLE layers (id TEXT PRIMARY KEY, parent TEXT REFERENCES layers(id), encrypted INTEGER NOT NULL,"
    " salt TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX layers_by_parent ON layers(parent)",
    "CREATE TABLE volumes (id TEXT PRIMARY KEY, layer TEXT NOT NULL UNIQUE REFERENCES layers(id), size "
    "INTEGER NOT NULL,"
    " snapshot TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE snapshots (id TEXT PRIMARY KEY, layer TEXT NOT NULL REFERENCES layers(id), volume TEXT NOT "
    "NULL,"
    " size INTEGER NOT NULL, completed INTEGER NOT NULL, percent INTEGER NOT NULL, error TEXT NOT NULL) "
    "WITHOUT ROWID",
    "CREATE INDEX snapshots_by_layer ON snapshots(layer)",
    "PRAGMA user_version=1",
};
// Version 1 did not know which layers had been punched: those with something on them may have been.
constexpr const char* kFromVersion1[] = {
    "ALTER TABLE layers ADD COLUMN origin TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE layers ADD COLUMN punched INTEGER NOT NULL DEFAULT 0",
    "UPDATE layers SET origin = id, punched = EXISTS (SELECT 1 FROM layers AS above WHERE above.parent = "
    "layers.id)",
    "CREATE INDEX layers_by_origin ON layers(origin)",
    "CREATE TABLE copies (snapshot TEXT PRIMARY KEY, layer TEXT REFERENCES layers(id), making TEXT NOT NULL,"
    " origin TEXT NOT NULL, salt TEXT NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version=2",
};

LayerRow layer_of(const Database::Row& row) {
  return {row.text(0), row.text(1), row.number(2) != 0,
          row.text(3), row.text(4), static_cast<LayerRow::Punched>(row.number(5))};
}
CopyRow copy_of(const Database::Row& row) {
  return {row.text(0), row.text(1), row.text(2), row.text(3), row.text(4)};
}
VolumeRow volume_of(const Database::Row& row) {
  return {row.text(0), row.text(1), static_cast<uint64_t>(row.number(2)), row.text(3)};
}
SnapshotRow snapshot_of(const Database::Row& row) {
  return {row.text(0),        row.text(1),
          row.text(2),        static_cast<uint64_t>(row.number(3)),
          row.number(4) != 0, static_cast<unsigned>(row.number(5)),
          row.text(6)};
}

template <typename T, typename Make>
Result<std::vector<T>> all(Database& database, const char* sql, const std::vector<Database::Value>& values,
                           Make make) {
  std::vector<T> found;
  TRY(database.query(sql, values, [&](const Database::Row& row) { found.push_back(make(row)); }));
  return found;
}
template <typename T, typename Make>
Result<std::optional<T>> one(Database& database, const char* sql, const std::string& id, Make make) {
  std::vector<T> found = TRY(all<T>(database, sql, {id}, make));
  if (found.empty()) return std::optional<T>();
  return std::optional<T>(std::move(found.front()));
}

}  // namespace

Result<std::unique_ptr<Catalog>> Catalog::open(const std::filesystem::path& file) {
  // Not within the new-expression: TRY() would return between the allocation and the constructor.
  std::unique_ptr<Database> opened = TRY(Database::open(file));
  std::unique_ptr<Catalog> catalog(new Catalog(std::move(opened)));
  Database& database = *catalog->database_;
  int64_t version = -1;
  TRY(database.query("PRAGMA user_version", {}, [&](const Database::Row& row) { version = row.number(0); }));
  if (version < 0 || version > kVersion) {
    return make_error(ErrorCode::kUnsupported, "{}: the catalog has version {}, and this program knows {}",
                      file.string(), version, kVersion);
  }
  TRY(database.transaction([&]() -> Status {
    if (version < 1) {
      for (const char* sql : kTables) TRY(database.run(sql));
    }
    if (version < 2) {
      for (const char* sql : kFromVersion1) TRY(database.run(sql));
    }
    return {};
  }));
  return catalog;
}

Status Catalog::tidy() {
  return database_->run("PRAGMA wal_checkpoint(TRUNCATE)");
}

Status Catalog::add_layer(const LayerRow& layer) {
  return database_->run("INSERT INTO layers VALUES (?, NULLIF(?, ''), ?, ?, ?, ?)",
                        {layer.id, layer.parent, int64_t{layer.encrypted}, layer.salt, layer.origin,
                         static_cast<int64_t>(layer.punched)});
}
Status Catalog::remove_layer(const std::string& id) {
  return database_->run("DELETE FROM layers WHERE id = ?", {id});
}
Result<std::optional<LayerRow>> Catalog::layer(const std::string& id) {
  return one<LayerRow>(*database_, "SELECT * FROM layers WHERE id = ?", id, layer_of);
}
Result<std::vector<LayerRow>> Catalog::layers() {
  return all<LayerRow>(*database_, "SELECT * FROM layers", {}, layer_of);
}
Result<std::vector<LayerRow>> Catalog::whole_of(const std::string& origin) {
  return all<LayerRow>(*database_, "SELECT * FROM layers WHERE origin = ? AND punched = 0", {origin},
                       layer_of);
}
Status Catalog::set_punched(const std::string& id, LayerRow::Punched punched) {
  return database_->run("UPDATE layers SET punched = ? WHERE id = ?", {static_cast<int64_t>(punched), id});
}
Result<std::vector<std::string>> Catalog::children(const std::string& layer) {
  return all<std::string>(*database_, "SELECT id FROM layers WHERE parent = ?", {layer},
                          [](const Database::Row& row) { return row.text(0); });
}
Result<std::vector<std::string>> Catalog::users(const std::string& layer) {
  return all<std::string>(
      *database_,
      "SELECT id FROM volumes WHERE layer = ?1 UNION SELECT id FROM snapshots WHERE layer = ?1 UNION "
      "SELECT snapshot FROM copies WHERE layer = ?1",
      {layer}, [](const Database::Row& row) { return row.text(0); });
}

Status Catalog::put_volume(const VolumeRow& volume) {
  return database_->run("INSERT OR REPLACE INTO volumes VALUES (?, ?, ?, ?)",
                        {volume.id, volume.layer, static_cast<int64_t>(volume.size_bytes), volume.snapshot});
}
Status Catalog::remove_volume(const std::string& id) {
  return database_->run("DELETE FROM volumes WHERE id = ?", {id});
}
Result<std::optional<VolumeRow>> Catalog::volume(const std::string& id) {
  return one<VolumeRow>(*database_, "SELECT * FROM volumes WHERE id = ?", id, volume_of);
}
Result<std::vector<VolumeRow>> Catalog::volumes() {
  return all<VolumeRow>(*database_, "SELECT * FROM volumes", {}, volume_of);
}

Status Catalog::put_snapshot(const SnapshotRow& s) {
  return database_->run("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
                        {s.id, s.layer, s.volume, static_cast<int64_t>(s.size_bytes), int64_t{s.completed},
                         int64_t{s.percent}, s.error});
}
Status Catalog::remove_snapshot(const std::string& id) {
  return database_->run("DELETE FROM snapshots WHERE id = ?", {id});
}
Result<std::optional<SnapshotRow>> Catalog::snapshot(const std::string& id) {
  return one<SnapshotRow>(*database_, "SELECT * FROM snapshots WHERE id = ?", id, snapshot_of);
}
Result<std::vector<SnapshotRow>> Catalog::snapshots() {
  return all<SnapshotRow>(*database_, "SELECT * FROM snapshots", {}, snapshot_of);
}

Status Catalog::put_copy(const CopyRow& c) {
  return database_->run("INSERT OR REPLACE INTO copies VALUES (?, NULLIF(?, ''), ?, ?, ?)",
                        {c.snapshot, c.layer, c.making, c.origin, c.salt});
}
Status Catalog::remove_copy(const std::string& snapshot) {
  return database_->run("DELETE FROM copies WHERE snapshot = ?", {snapshot});
}
Result<std::optional<CopyRow>> Catalog::copy(const std::string& snapshot) {
  return one<CopyRow>(*database_, "SELECT * FROM copies WHERE snapshot = ?", snapshot, copy_of);
}
Result<std::vector<CopyRow>> Catalog::copies() {
  return all<CopyRow>(*database_, "SELECT * FROM copies", {}, copy_of);
}

}  // namespace haneul::storage
