// SPDX-License-Identifier: Apache-2.0
// Answer<T>: what an API operation gives: its reply, or an error with EC2's code. Bad input from a client
// ends here; failures of the world (Error, base/result.h) become InternalError or a code the operation
// chooses.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace haneul::agent {

/// EC2's error codes, each with its HTTP status in one table (answer.cc).
enum class ApiCode {
  kAttachmentLimitExceeded,
  kDryRunOperation,
  kIdempotentParameterMismatch,
  kIncorrectInstanceState,
  kIncorrectModificationState,
  kIncorrectState,
  kInstanceLimitExceeded,
  kInsufficientFreeAddressesInSubnet,
  kInsufficientInstanceCapacity,
  kInsufficientVolumeCapacity,
  kInternalError,
  kInvalidAction,
  kInvalidAmiIdMalformed,
  kInvalidAmiIdNotFound,
  kInvalidAmiIdUnavailable,
  kInvalidAmiNameDuplicate,
  kInvalidAmiNameMalformed,
  kInvalidAttachmentNotFound,
  kInvalidBlockDeviceMapping,
  kInvalidExportTaskIdNotFound,
  kInvalidGroupNotFound,
  kInvalidId,
  kInvalidInstanceIdMalformed,
  kInvalidInstanceIdNotFound,
  kInvalidInstanceType,
  kInvalidIpAddressInUse,
  kInvalidKeyFormat,
  kInvalidKeyPairDuplicate,
  kInvalidKeyPairNotFound,
  kInvalidManifest,
  kInvalidNextToken,
  kInvalidParameterCombination,
  kInvalidParameterValue,
  kInvalidSnapshotIdMalformed,
  kInvalidSnapshotInUse,
  kInvalidSnapshotNotFound,
  kInvalidSubnetIdNotFound,
  kInvalidUserDataMalformed,
  kInvalidUserIdMalformed,
  kInvalidVolumeIdMalformed,
  kInvalidVolumeNotFound,
  kInvalidVolumeZoneMismatch,
  kInvalidZoneNotFound,
  kMalformedQueryString,
  kMissingParameter,
  kOperationNotPermitted,
  kRequestEntityTooLarge,
  kResourceLimitExceeded,
  kTagLimitExceeded,
  kUnavailable,
  kUnknownParameter,
  kUnknownVolumeType,
  kUnsupportedOperation,
  kVolumeInUse,
  kVolumeLimitExceeded,
};
constexpr size_t kApiCodeCount = static_cast<size_t>(ApiCode::kVolumeLimitExceeded) + 1;

/// EC2's spelling, as "InvalidAMIID.NotFound".
std::string_view name(ApiCode code);
unsigned http_status(ApiCode code);

class [[nodiscard]] ApiError {
 public:
  ApiError(ApiCode code, std::string message) : code_(code), message_(std::move(message)) {}
  /// A failure of the world, with its sentence: InternalError, but InsufficientVolumeCapacity of a full disk.
  ApiError(Error error)  // NOLINT(google-explicit-constructor)
      : code_(error.code() == ErrorCode::kNoSpace ? ApiCode::kInsufficientVolumeCapacity
                                                  : ApiCode::kInternalError),
        message_(error.message()) {}

  ApiCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  ApiCode code_;
  std::string message_;
};

template <typename... Args>
ApiError api_error(ApiCode code, fmt::format_string<Args...> format, Args&&... args) {
  return ApiError(code, fmt::format(format, std::forward<Args>(args)...));
}

template <typename T>
class [[nodiscard]] Answer {
 public:
  Answer(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Answer(ApiError error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  Answer(Error error) : error_(std::move(error)) {}     // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  T& value() & {
    require();
    return *value_;
  }
  const T& value() const& {
    require();
    return *value_;
  }
  T value() && {
    require();
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const ApiError& error() const& { return *error_; }
  ApiError error() && { return std::move(*error_); }

 private:
  void require() const {
    if (!ok()) check_failed(__FILE__, __LINE__, error_->message().c_str());
  }
  std::optional<T> value_;
  std::optional<ApiError> error_;
};

template <>
class [[nodiscard]] Answer<void> {
 public:
  Answer() = default;
  Answer(ApiError error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  Answer(Error error) : error_(std::move(error)) {}     // NOLINT(google-explicit-constructor)

  bool ok() const { return !error_.has_value(); }
  void value() const {
    if (!ok()) check_failed(__FILE__, __LINE__, error_->message().c_str());
  }
  const ApiError& error() const& { return *error_; }
  ApiError error() && { return std::move(*error_); }

 private:
  std::optional<ApiError> error_;
};

}  // namespace haneul::agent
