// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace haneul {

std::string_view name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kNoSpace:
      return "no space";
    case ErrorCode::kIo:
      return "input/output";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kPermission:
      return "permission";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kOutOfRange:
      return "out of range";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "unknown";
}

namespace {

ErrorCode code_of(int number) {
  switch (number) {
    case EINVAL:
      return ErrorCode::kInvalidArgument;
    case ENOENT:
    case ESRCH:
    case ENODEV:
    case ENXIO:
      return ErrorCode::kNotFound;
    case EEXIST:
    case EADDRINUSE:
      return ErrorCode::kExists;
    case EBUSY:
    case EAGAIN:
      return ErrorCode::kBusy;
    case ENOSPC:
    case EDQUOT:
      return ErrorCode::kNoSpace;
    case EACCES:
    case EPERM:
      return ErrorCode::kPermission;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
      return ErrorCode::kUnsupported;
    case ERANGE:
    case EOVERFLOW:
      return ErrorCode::kOutOfRange;
    case ETIMEDOUT:
      return ErrorCode::kTimeout;
    case ECANCELED:
    case EINTR:
      return ErrorCode::kCancelled;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

Error Error::from_errno(int number, std::string_view message) {
  Error error(code_of(number), fmt::format("{}: {}", message, std::generic_category().message(number)));
  error.number_ = number;
  return error;
}

Error Error::context(std::string_view context) && {
  message_ = fmt::format("{}: {}", context, message_);
  return std::move(*this);
}

void check_failed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: internal error: %s\n", file, line, what);
  std::abort();
}

}  // namespace haneul
