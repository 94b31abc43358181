// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/regions_record.h"

#include <algorithm>
#include <map>
#include <set>

#include "agent/daemon/network_record.h"
#include "agent/state/records.h"
#include "agent/state/volume_records.h"

namespace haneul::agent {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}

// Lower-case words joined by dashes, the last a number, as all of EC2's are: zone names are told from it by their letter.
bool is_region_name(const std::string& name) {
  std::vector<std::string> words = split(name, '-');
  bool number =
      std::all_of(words.back().begin(), words.back().end(), [](char c) { return c >= '0' && c <= '9'; });
  if (words.size() < 2 || words.back().empty() || !number || name.size() > 32) return false;
  return std::all_of(words.begin(), words.end() - 1, [](const std::string& word) {
    return !word.empty() && std::all_of(word.begin(), word.end(), is_lower);
  });
}

Result<WantedRegion> parse_region(const std::string& text) {
  size_t colon = text.find(':');
  WantedRegion region{text.substr(0, colon), colon == std::string::npos ? "abc" : text.substr(colon + 1)};
  if (!is_region_name(region.name)) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not a region's name, as us-east-1", region.name);
  }
  std::sort(region.letters.begin(), region.letters.end());
  bool letters = std::all_of(region.letters.begin(), region.letters.end(), is_lower);
  bool twice = std::adjacent_find(region.letters.begin(), region.letters.end()) != region.letters.end();
  if (region.letters.empty() || !letters || twice) {
    return make_error(ErrorCode::kInvalidArgument,
                      "'{}': the zones of a region are letters, each once, as {}:abc", text, region.name);
  }
  return region;
}

Result<std::optional<std::vector<RegionPlan>>> read_record(StateStore& store) {
  for (const StateStore::Object& object : TRY(store.list(RegionsRecord::kKind))) {
    Answer<Json> json = parse_json(object.value);
    auto record = json.ok() ? decode_checked<RegionsRecord>(*json) : Answer<RegionsRecord>(json.error());
    bool sound = record.ok() && !record->regions.empty();
    std::set<int64_t> numbers;
    for (size_t i = 0; sound && i < record->regions.size(); ++i) {
      const std::vector<ZonePlan>& zones = record->regions[i].zones;
      sound = !zones.empty() && std::all_of(zones.begin(), zones.end(), [&](const ZonePlan& zone) {
        return zone.letter.size() == 1 && zone.number >= 0 && zone.number < static_cast<int64_t>(kMaxZones) &&
               numbers.insert(zone.number).second;
      });
    }
    if (!sound) {
      return make_error(ErrorCode::kCorrupt, "the state of {} {} cannot be read", RegionsRecord::kKind,
                        object.id);
    }
    return std::optional(std::move(record->regions));
  }
  // A cloud from before there was a choice.
  if (!TRY(store.list(NetworkRecord::kKind)).empty() || !TRY(store.list(InstanceRecord::kKind)).empty())
    return std::optional(default_regions());
  return std::optional<std::vector<RegionPlan>>();
}

std::set<std::string> zones_of(const std::vector<RegionPlan>& regions) {
  std::set<std::string> zones;
  for (const RegionPlan& region : regions) {
    for (const ZonePlan& zone : region.zones) zones.insert(region.name + zone.letter);
  }
  return zones;
}

std::vector<RegionPlan> plan(const std::vector<WantedRegion>& wanted, const std::vector<RegionPlan>& known) {
  std::vector<RegionPlan> regions;
  std::set<std::string> kept;
  for (const WantedRegion& region : wanted) {
    for (char letter : region.letters) kept.insert(region.name + letter);
  }
  std::map<std::string, int64_t> numbers;
  std::set<int64_t> taken;
  for (const RegionPlan& region : known) {
    for (const ZonePlan& zone : region.zones) {
      if (!kept.contains(region.name + zone.letter)) continue;
      numbers[region.name + zone.letter] = zone.number;
      taken.insert(zone.number);
    }
  }
  int64_t next = 0;
  for (const WantedRegion& region : wanted) {
    RegionPlan planned{.name = region.name, .zones = {}};
    for (char letter : region.letters) {
      auto number = numbers.find(region.name + letter);
      if (number == numbers.end()) {
        while (taken.contains(next)) ++next;
        number = numbers.emplace(region.name + letter, next++).first;
      }
      planned.zones.push_back({std::string(1, letter), number->second});
    }
    regions.push_back(std::move(planned));
  }
  return regions;
}

/// What has ended is in nobody's way: it is forgotten in time, whatever its place.
bool has_ended(std::string_view kind, const std::string& state) {
  if (kind == InstanceRecord::kKind) return state == "terminated";
  if (kind == ImageRecord::kKind) return state == "deregistered";
  return kind == TaskRecord::kKind && state != "pending";
}

/// A member's text; "" for whatever else: a record that cannot be read is the model's to refuse.
std::string text_of(const Json& record, const char* member) {
  auto found = record.find(member);
  return found != record.end() && found->is_string() ? found->get<std::string>() : "";
}

/// What stands in the way of the places that are to go.
class Leaving {
 public:
  Leaving(const std::vector<RegionPlan>& before, const std::vector<RegionPlan>& after) {
    std::set<std::string> staying = zones_of(after);
    for (const std::string& zone : zones_of(before)) {
      if (!staying.contains(zone)) zones_.insert(zone);
    }
    for (const RegionPlan& region : before) {
      bool stays = std::any_of(after.begin(), after.end(),
                               [&](const RegionPlan& other) { return other.name == region.name; });
      if (!stays) regions_.insert(region.name);
    }
  }

  Status look_through(StateStore& store) const {
    for (const char* kind : {InstanceRecord::kKind, VolumeRecord::kKind, SnapshotRecord::kKind,
                             ImageRecord::kKind, KeyRecord::kKind, TaskRecord::kKind}) {
      for (const StateStore::Object& object : TRY(store.list(kind))) {
        Answer<Json> json = parse_json(object.value);
        if (!json.ok() || !json->is_object() || has_ended(kind, text_of(*json, "state"))) continue;
        std::string place = text_of(*json, "zone");
        if (!zones_.contains(place)) place = text_of(*json, "region");
        if (!zones_.contains(place) && !regions_.contains(place)) continue;
        return make_error(ErrorCode::kExists,
                          "{} is still in {}: delete it first, or leave {} among the --regions", object.id,
                          place, place);
      }
    }
    return {};
  }

 private:
  std::set<std::string> zones_;
  std::set<std::string> regions_;
};

}  // namespace

Result<std::vector<WantedRegion>> parse_regions(const std::string& text) {
  std::vector<WantedRegion> regions;
  std::map<std::string, std::string> by_short_name;
  size_t zones = 0;
  for (const std::string& part : split(text, ',')) {
    WantedRegion region = TRY(parse_region(part));
    auto [other, fresh] = by_short_name.emplace(short_name(region.name), region.name);
    if (!fresh && other->second == region.name)
      return make_error(ErrorCode::kInvalidArgument, "the region {} is there twice", region.name);
    if (!fresh) {
      return make_error(ErrorCode::kInvalidArgument, "the zones of {} and {} would have the same ids, {}-az1",
                        region.name, other->second, other->first);
    }
    zones += region.letters.size();
    regions.push_back(std::move(region));
  }
  if (zones > kMaxZones) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "a cloud has {} zones at most, in all regions together, not {}: its /16 has no more subnets",
        kMaxZones, zones);
  }
  return regions;
}

Result<std::vector<RegionPlan>> settle_regions(StateStore& store,
                                               const std::optional<std::vector<WantedRegion>>& wanted) {
  auto known = TRY(read_record(store));
  if (!wanted && known) return *known;
  std::vector<RegionPlan> regions =
      wanted ? plan(*wanted, known.value_or(std::vector<RegionPlan>())) : default_regions();
  if (known == regions) return regions;
  if (known) TRY(Leaving(*known, regions).look_through(store));
  TRY(store.commit(
      Batch().put(RegionsRecord::kKind, RegionsRecord::kId, to_text(encode(RegionsRecord{regions})))));
  return regions;
}

}  // namespace haneul::agent
