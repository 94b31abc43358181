// SPDX-License-Identifier: Apache-2.0
#include "agent/ops/answer.h"

#include <array>

namespace haneul::agent {
namespace {

struct Row {
  ApiCode code;
  std::string_view name;
  unsigned status;
};

constexpr std::array<Row, kApiCodeCount> kTable = {{
    {ApiCode::kAttachmentLimitExceeded, "AttachmentLimitExceeded", 400},
    {ApiCode::kDryRunOperation, "DryRunOperation", 412},
    {ApiCode::kIdempotentParameterMismatch, "IdempotentParameterMismatch", 400},
    {ApiCode::kIncorrectInstanceState, "IncorrectInstanceState", 400},
    {ApiCode::kIncorrectModificationState, "IncorrectModificationState", 400},
    {ApiCode::kIncorrectState, "IncorrectState", 400},
    {ApiCode::kInstanceLimitExceeded, "InstanceLimitExceeded", 400},
    {ApiCode::kInsufficientFreeAddressesInSubnet, "InsufficientFreeAddressesInSubnet", 400},
    {ApiCode::kInsufficientInstanceCapacity, "InsufficientInstanceCapacity", 500},
    {ApiCode::kInsufficientVolumeCapacity, "InsufficientVolumeCapacity", 500},
    {ApiCode::kInternalError, "InternalError", 500},
    {ApiCode::kInvalidAction, "InvalidAction", 400},
    {ApiCode::kInvalidAmiIdMalformed, "InvalidAMIID.Malformed", 400},
    {ApiCode::kInvalidAmiIdNotFound, "InvalidAMIID.NotFound", 400},
    {ApiCode::kInvalidAmiIdUnavailable, "InvalidAMIID.Unavailable", 400},
    {ApiCode::kInvalidAmiNameDuplicate, "InvalidAMIName.Duplicate", 400},
    {ApiCode::kInvalidAmiNameMalformed, "InvalidAMIName.Malformed", 400},
    {ApiCode::kInvalidAttachmentNotFound, "InvalidAttachment.NotFound", 400},
    {ApiCode::kInvalidBlockDeviceMapping, "InvalidBlockDeviceMapping", 400},
    {ApiCode::kInvalidExportTaskIdNotFound, "InvalidExportTaskID.NotFound", 400},
    {ApiCode::kInvalidGroupNotFound, "InvalidGroup.NotFound", 400},
    {ApiCode::kInvalidId, "InvalidID", 400},
    {ApiCode::kInvalidInstanceIdMalformed, "InvalidInstanceID.Malformed", 400},
    {ApiCode::kInvalidInstanceIdNotFound, "InvalidInstanceID.NotFound", 400},
    {ApiCode::kInvalidInstanceType, "InvalidInstanceType", 400},
    {ApiCode::kInvalidIpAddressInUse, "InvalidIPAddress.InUse", 400},
    {ApiCode::kInvalidKeyFormat, "InvalidKey.Format", 400},
    {ApiCode::kInvalidKeyPairDuplicate, "InvalidKeyPair.Duplicate", 400},
    {ApiCode::kInvalidKeyPairNotFound, "InvalidKeyPair.NotFound", 400},
    {ApiCode::kInvalidManifest, "InvalidManifest", 400},
    {ApiCode::kInvalidNextToken, "InvalidNextToken", 400},
    {ApiCode::kInvalidParameterCombination, "InvalidParameterCombination", 400},
    {ApiCode::kInvalidParameterValue, "InvalidParameterValue", 400},
    {ApiCode::kInvalidSnapshotIdMalformed, "InvalidSnapshotID.Malformed", 400},
    {ApiCode::kInvalidSnapshotInUse, "InvalidSnapshot.InUse", 400},
    {ApiCode::kInvalidSnapshotNotFound, "InvalidSnapshot.NotFound", 400},
    {ApiCode::kInvalidSubnetIdNotFound, "InvalidSubnetID.NotFound", 400},
    {ApiCode::kInvalidUserDataMalformed, "InvalidUserData.Malformed", 400},
    {ApiCode::kInvalidUserIdMalformed, "InvalidUserID.Malformed", 400},
    {ApiCode::kInvalidVolumeIdMalformed, "InvalidVolumeID.Malformed", 400},
    {ApiCode::kInvalidVolumeNotFound, "InvalidVolume.NotFound", 400},
    {ApiCode::kInvalidVolumeZoneMismatch, "InvalidVolume.ZoneMismatch", 400},
    {ApiCode::kInvalidZoneNotFound, "InvalidZone.NotFound", 400},
    {ApiCode::kMalformedQueryString, "MalformedQueryString", 400},
    {ApiCode::kMissingParameter, "MissingParameter", 400},
    {ApiCode::kOperationNotPermitted, "OperationNotPermitted", 400},
    {ApiCode::kRequestEntityTooLarge, "RequestEntityTooLarge", 413},
    {ApiCode::kResourceLimitExceeded, "ResourceLimitExceeded", 400},
    {ApiCode::kTagLimitExceeded, "TagLimitExceeded", 400},
    {ApiCode::kUnavailable, "Unavailable", 503},
    {ApiCode::kUnknownParameter, "UnknownParameter", 400},
    {ApiCode::kUnknownVolumeType, "UnknownVolumeType", 400},
    {ApiCode::kUnsupportedOperation, "UnsupportedOperation", 400},
    {ApiCode::kVolumeInUse, "VolumeInUse", 400},
    {ApiCode::kVolumeLimitExceeded, "VolumeLimitExceeded", 400},
}};

constexpr bool in_order() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].code) != i) return false;
  }
  return true;
}
static_assert(in_order(), "one row for each code, in the order of the enum");

}  // namespace

std::string_view name(ApiCode code) {
  return kTable[static_cast<size_t>(code)].name;
}

unsigned http_status(ApiCode code) {
  return kTable[static_cast<size_t>(code)].status;
}

}  // namespace haneul::agent
