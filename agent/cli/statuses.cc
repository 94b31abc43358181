// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/statuses.h"

namespace haneul::agent {

const std::vector<StatusRow>& status_table() {
  using enum ApiCode;
  static const std::vector<StatusRow> table = {
      {kCliFailed, ErrorCode::kIo, {kUnavailable, kDryRunOperation}},
      {kCliNoDaemon, ErrorCode::kCancelled, {}},
      {kCliTimeout, ErrorCode::kTimeout, {}},
      {kCliNotFound,
       ErrorCode::kNotFound,
       {kInvalidAmiIdNotFound, kInvalidAttachmentNotFound, kInvalidExportTaskIdNotFound,
        kInvalidGroupNotFound, kInvalidInstanceIdNotFound, kInvalidKeyPairNotFound, kInvalidSnapshotNotFound,
        kInvalidSubnetIdNotFound, kInvalidVolumeNotFound, kInvalidZoneNotFound}},
      {kCliInvalid,
       ErrorCode::kInvalidArgument,
       {kInvalidAction,
        kInvalidAmiIdMalformed,
        kInvalidAmiNameMalformed,
        kInvalidBlockDeviceMapping,
        kInvalidId,
        kInvalidInstanceIdMalformed,
        kInvalidInstanceType,
        kInvalidKeyFormat,
        kInvalidManifest,
        kInvalidNextToken,
        kInvalidParameterCombination,
        kInvalidParameterValue,
        kInvalidSnapshotIdMalformed,
        kInvalidUserDataMalformed,
        kInvalidUserIdMalformed,
        kInvalidVolumeIdMalformed,
        kInvalidVolumeZoneMismatch,
        kMalformedQueryString,
        kMissingParameter,
        kRequestEntityTooLarge,
        kUnknownParameter,
        kUnknownVolumeType,
        kUnsupportedOperation}},
      {kCliState,
       ErrorCode::kBusy,
       {kIncorrectInstanceState, kIncorrectModificationState, kIncorrectState, kInvalidAmiIdUnavailable}},
      {kCliConflict,
       ErrorCode::kExists,
       {kIdempotentParameterMismatch, kInvalidAmiNameDuplicate, kInvalidIpAddressInUse,
        kInvalidKeyPairDuplicate, kInvalidSnapshotInUse, kVolumeInUse}},
      {kCliLimit,
       ErrorCode::kNoSpace,
       {kAttachmentLimitExceeded, kInstanceLimitExceeded, kInsufficientFreeAddressesInSubnet,
        kInsufficientInstanceCapacity, kInsufficientVolumeCapacity, kResourceLimitExceeded, kTagLimitExceeded,
        kVolumeLimitExceeded}},
      {kCliNotPermitted, ErrorCode::kPermission, {kOperationNotPermitted}},
      {kCliInternal, ErrorCode::kInternal, {kInternalError}},
  };
  return table;
}

ErrorCode kind_of(std::string_view api_code) {
  for (const StatusRow& row : status_table()) {
    for (ApiCode code : row.codes) {
      if (name(code) == api_code) return row.kind;
    }
  }
  return ErrorCode::kIo;
}

int status_of(const Error& error) {
  for (const StatusRow& row : status_table()) {
    if (row.kind == error.code()) return row.status;
  }
  return kCliFailed;
}

}  // namespace haneul::agent
