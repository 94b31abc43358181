// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on keys.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct CreateKeyPairRequest {
  std::string key_name;
  std::optional<bool> dry_run;
  std::optional<std::string> key_type;
  std::vector<TagSpecification> tag_specifications;
  std::optional<std::string> key_format;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyName", .wire = "KeyName", .required = true}, &CreateKeyPairRequest::key_name);
    visit({.name = "DryRun"}, &CreateKeyPairRequest::dry_run);
    visit({.name = "KeyType", .wire = "KeyType"}, &CreateKeyPairRequest::key_type);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &CreateKeyPairRequest::tag_specifications);
    visit({.name = "KeyFormat", .wire = "KeyFormat"}, &CreateKeyPairRequest::key_format);
  }
};

struct CreateKeyPairReply {
  std::string key_fingerprint;
  std::string key_material;
  std::string key_name;
  std::string key_pair_id;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyFingerprint"}, &CreateKeyPairReply::key_fingerprint);
    visit({.name = "KeyMaterial"}, &CreateKeyPairReply::key_material);
    visit({.name = "KeyName"}, &CreateKeyPairReply::key_name);
    visit({.name = "KeyPairId"}, &CreateKeyPairReply::key_pair_id);
    visit({.name = "Tags", .wire = "tagSet"}, &CreateKeyPairReply::tags);
  }
};

struct ImportKeyPairRequest {
  std::optional<bool> dry_run;
  std::string key_name;
  Blob public_key_material;
  std::vector<TagSpecification> tag_specifications;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun"}, &ImportKeyPairRequest::dry_run);
    visit({.name = "KeyName", .required = true}, &ImportKeyPairRequest::key_name);
    visit({.name = "PublicKeyMaterial", .required = true}, &ImportKeyPairRequest::public_key_material);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &ImportKeyPairRequest::tag_specifications);
  }
};

struct ImportKeyPairReply {
  std::string key_fingerprint;
  std::string key_name;
  std::string key_pair_id;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyFingerprint"}, &ImportKeyPairReply::key_fingerprint);
    visit({.name = "KeyName"}, &ImportKeyPairReply::key_name);
    visit({.name = "KeyPairId"}, &ImportKeyPairReply::key_pair_id);
    visit({.name = "Tags", .wire = "tagSet"}, &ImportKeyPairReply::tags);
  }
};

struct DescribeKeyPairsRequest {
  std::vector<Filter> filters;
  std::vector<std::string> key_names;
  std::vector<std::string> key_pair_ids;
  std::optional<bool> dry_run;
  std::optional<bool> include_public_key;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeKeyPairsRequest::filters);
    visit({.name = "KeyNames", .wire = "KeyName"}, &DescribeKeyPairsRequest::key_names);
    visit({.name = "KeyPairIds", .wire = "KeyPairId"}, &DescribeKeyPairsRequest::key_pair_ids);
    visit({.name = "DryRun"}, &DescribeKeyPairsRequest::dry_run);
    visit({.name = "IncludePublicKey", .wire = "IncludePublicKey"},
          &DescribeKeyPairsRequest::include_public_key);
  }
};

struct DescribeKeyPairsReply {
  std::vector<KeyPairInfo> key_pairs;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyPairs", .wire = "keySet"}, &DescribeKeyPairsReply::key_pairs);
  }
};

struct DeleteKeyPairRequest {
  std::optional<std::string> key_name;
  std::optional<std::string> key_pair_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyName", .wire = "KeyName"}, &DeleteKeyPairRequest::key_name);
    visit({.name = "KeyPairId", .wire = "KeyPairId"}, &DeleteKeyPairRequest::key_pair_id);
    visit({.name = "DryRun"}, &DeleteKeyPairRequest::dry_run);
  }
};

}  // namespace haneul::agent
