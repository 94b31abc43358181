// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/network_record.h"

#include "agent/cloud/places.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

constexpr unsigned kVpcBits = 16;

net::Ipv4Prefix sixteen(uint32_t network) {
  return {.address = {network}, .length = kVpcBits};
}

Result<std::optional<NetworkRecord>> read_record(StateStore& store) {
  for (const StateStore::Object& object : TRY(store.list(NetworkRecord::kKind))) {
    Answer<Json> json = parse_json(object.value);
    auto record = json.ok() ? decode_checked<NetworkRecord>(*json) : Answer<NetworkRecord>(json.error());
    if (!record.ok() || !parse_vpc(record->vpc).ok()) {
      return make_error(ErrorCode::kCorrupt, "the state of {} {} cannot be read", NetworkRecord::kKind,
                        object.id);
    }
    return std::optional(std::move(record).value());
  }
  // A cloud from before there was a choice.
  if (!TRY(store.list("instance")).empty()) {
    return std::optional(NetworkRecord{.vpc = sixteen(kEc2sVpc).text(), .tag = ""});
  }
  return std::optional<NetworkRecord>();
}

Result<net::Ipv4Prefix> choose_range(const std::optional<net::Ipv4Prefix>& wanted, const std::string& tag,
                                     const NetworkSurvey& survey) {
  if (wanted) {
    std::string user = TRY(survey.user_of(tag, *wanted));
    if (user.empty()) return *wanted;
    return make_error(
        ErrorCode::kExists,
        "the range {} is in use on this host ({}): choose another with --vpc, or leave it away for "
        "one that is free",
        wanted->text(), user);
  }
  constexpr uint32_t kLowest = 172u << 24 | 16u << 16;
  std::string first_user;
  for (uint32_t network = kEc2sVpc; network >= kLowest; network -= 1u << 16) {
    std::string user = TRY(survey.user_of(tag, sixteen(network)));
    if (user.empty() && network != kEc2sVpc) {
      LOG_INFO("the VPC is {}: {} is in use on this host ({})", sixteen(network).text(),
               sixteen(kEc2sVpc).text(), first_user);
    }
    if (user.empty()) return sixteen(network);
    if (first_user.empty()) first_user = user;
  }
  return make_error(
      ErrorCode::kExists,
      "all ranges from 172.31.0.0/16 down to 172.16.0.0/16 are in use on this host (the first: {}): "
      "choose another with --vpc, or run the cloud in a network of its own with `--network private`",
      first_user);
}

}  // namespace

Result<net::Ipv4Prefix> parse_vpc(const std::string& text) {
  auto range = net::Ipv4Prefix::parse(text);
  if (!range.ok()) return std::move(range).error();
  unsigned first = range->address.value >> 24;
  bool unusable =
      first == 0 || first == 127 || first >= 224 || range->address.value >> 16 == (169u << 8 | 254u);
  if (range->length == kVpcBits && !unusable) return *range;
  return make_error(ErrorCode::kInvalidArgument, "{} is not a range for a VPC: a /16 such as 10.7.0.0/16",
                    text);
}

Result<NetworkRecord> settle_network(StateStore& store, const std::optional<net::Ipv4Prefix>& wanted,
                                     const NetworkSurvey& survey) {
  auto known = TRY(read_record(store));
  if (known && wanted && known->vpc != wanted->text()) {
    return make_error(
        ErrorCode::kExists,
        "this cloud has had the range {} since its first start, and its instances have addresses of "
        "it, not of {}: leave --vpc away, or choose another state folder",
        known->vpc, wanted->text());
  }
  NetworkRecord record;
  record.tag = TRY(survey.choose_tag(known ? known->tag : ""));
  record.vpc = known ? known->vpc : TRY(choose_range(wanted, record.tag, survey)).text();
  if (known && known->vpc == record.vpc && known->tag == record.tag) return record;
  TRY(store.commit(Batch().put(NetworkRecord::kKind, NetworkRecord::kId, to_text(encode(record)))));
  return record;
}

}  // namespace haneul::agent
