// SPDX-License-Identifier: Apache-2.0
// The operations that look at snapshots.
#include <algorithm>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

const FilterTable<SnapshotRecord>& snapshot_filters() {
  using R = const SnapshotRecord&;
  using V = std::vector<std::string>;
  static const FilterTable<SnapshotRecord> table({
      {"snapshot-id", [](R r) -> V { return {r.id}; }},
      {"volume-id", [](R r) -> V { return {r.volume_id}; }},
      {"volume-size", [](R r) -> V { return {std::to_string(gib(r.bytes))}; }},
      {"status", [](R r) -> V { return {r.state}; }},
      {"progress", [](R r) -> V { return {fmt::format("{}%", r.progress)}; }},
      {"description", [](R r) -> V { return {r.description}; }},
      {"start-time", [](R r) -> V { return {to_text(r.started)}; }},
      {"owner-id", [](R r) -> V { return {r.owner}; }},
      {"owner-alias", [](R) -> V { return {}; }},
      {"encrypted", [](R r) -> V { return {r.encrypted ? "true" : "false"}; }},
      {"storage-tier", [](R) -> V { return {"standard"}; }},
  });
  return table;
}

bool owned(const SnapshotRecord& snapshot, const std::vector<std::string>& owners) {
  return owners.empty() || std::any_of(owners.begin(), owners.end(), [&](const std::string& owner) {
           return owner == snapshot.owner || (owner == "self" && snapshot.owner == kAccount);
         });
}

// "self" and the owner's account may use it; others if it is public or shared with them; "all": is public.
bool restorable(const SnapshotRecord& snapshot, const std::vector<std::string>& users) {
  const PermissionRecord& permissions = snapshot.permissions;
  const auto& accounts = permissions.accounts;
  return users.empty() || std::any_of(users.begin(), users.end(), [&](const std::string& user) {
           if (user == "all") return permissions.everyone;
           bool own = user == "self" || user == snapshot.owner;
           return own || permissions.everyone ||
                  std::find(accounts.begin(), accounts.end(), user) != accounts.end();
         });
}

}  // namespace

// Under the lock.
Answer<SnapshotRecord> Cloud::find_snapshot(const Caller& caller, const std::string& id) {
  if (!valid_id(id, "snap")) return malformed_id(ApiCode::kInvalidSnapshotIdMalformed, id, "snap");
  auto found = model_.snapshots().find(id);
  bool here = found != model_.snapshots().end() && found->second.region == caller.region;
  if (!here || found->second.state == "deleting") return unknown_id(id);
  return found->second;
}

Snapshot Cloud::describe(const SnapshotRecord& record) {
  Snapshot snapshot;
  snapshot.description = record.description;
  snapshot.encrypted = record.encrypted;
  snapshot.owner_id = record.owner;
  int64_t percent =
      record.state == "pending" ? archive_.progress(record.id, record.progress) : record.progress;
  snapshot.progress = fmt::format("{}%", percent);
  snapshot.snapshot_id = record.id;
  snapshot.start_time = record.started;
  snapshot.state = record.state;
  if (!record.message.empty()) snapshot.state_message = record.message;
  snapshot.volume_id = record.volume_id;
  snapshot.volume_size = gib(record.bytes);
  snapshot.tags = record.tags;
  snapshot.storage_tier = "standard";
  return snapshot;
}

Answer<DescribeSnapshotsReply> Cloud::describe_snapshots(const Caller& caller,
                                                         const DescribeSnapshotsRequest& request) {
  TRY(snapshot_filters().check(request.filters));
  if (!request.snapshot_ids.empty() && request.max_results) {
    return ApiError(ApiCode::kInvalidParameterCombination,
                    "The parameter snapshotIds cannot be used with the parameter maxResults");
  }
  DescribeSnapshotsReply reply;
  {
    std::scoped_lock lock(model_.mutex());
    for (const std::string& id : request.snapshot_ids) TRY(find_snapshot(caller, id));
    if (request.dry_run.value_or(false)) return dry_run_error();
    std::vector<std::string> ids;
    const auto& wanted = request.snapshot_ids;
    for (const auto& [id, snapshot] : model_.snapshots()) {
      bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), id) != wanted.end();
      bool shown = snapshot.region == caller.region && snapshot.state != "deleting" && named;
      if (shown && owned(snapshot, request.owner_ids) &&
          restorable(snapshot, request.restorable_by_user_ids) &&
          snapshot_filters().matches(snapshot, snapshot.tags, request.filters)) {
        ids.push_back(id);
      }
    }
    Page page = TRY(page_of(ids, request.max_results, request.next_token));
    for (size_t i = page.begin; i < page.end; ++i)
      reply.snapshots.push_back(describe(model_.snapshots()[ids[i]]));
    reply.next_token = page.next_token;
  }
  // What each holds by itself, the store knows.
  auto store = stores_.of(caller.region);
  for (Snapshot& snapshot : reply.snapshots) {
    auto info =
        store.ok() ? (*store)->snapshot(snapshot.snapshot_id) : Result<storage::SnapshotInfo>(store.error());
    if (info.ok()) snapshot.changed_bytes = static_cast<int64_t>(info->changed_bytes);
  }
  return reply;
}

}  // namespace haneul::agent
