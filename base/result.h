// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error, for everything that the world outside can make fail.
// Nothing in Haneul throws. A bug of ours is a CHECK, which ends the process.
#pragma once

#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace haneul {

/// What kind of failure it was, for code that has to decide; people read the message.
enum class ErrorCode {
  kInvalidArgument,
  kNotFound,
  kExists,
  kBusy,
  kNoSpace,
  kIo,
  kUnsupported,
  kPermission,
  kCorrupt,
  kOutOfRange,
  kTimeout,
  kCancelled,
  kInternal,
};

std::string_view name(ErrorCode code);

class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  /// From errno: "MESSAGE: No such file or directory". The code follows from the number.
  static Error from_errno(int number, std::string_view message);

  ErrorCode code() const { return code_; }
  /// The errno behind it, or 0.
  int number() const { return number_; }
  const std::string& message() const { return message_; }

  /// The same error with one line of context before it: "CONTEXT: MESSAGE".
  Error context(std::string_view context) &&;

 private:
  ErrorCode code_;
  int number_ = 0;
  std::string message_;
};

template <typename... Args>
Error make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Error from the current errno.
template <typename... Args>
Error errno_error(fmt::format_string<Args...> format, Args&&... args);

[[noreturn]] void check_failed(const char* file, int line, const char* what);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error)
      : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    require();
    return std::get<0>(state_);
  }
  const T& value() const& {
    require();
    return std::get<0>(state_);
  }
  T value() && {
    require();
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& { return std::get<1>(state_); }
  Error error() && { return std::get<1>(std::move(state_)); }

  /// The same result; a failure gets "CONTEXT: " before its message.
  Result context(std::string_view context) && {
    if (ok()) return std::move(*this);
    return std::move(*this).error().context(context);
  }

 private:
  void require() const {
    if (!ok()) check_failed(__FILE__, __LINE__, std::get<1>(state_).message().c_str());
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  void value() const {
    if (!ok_) check_failed(__FILE__, __LINE__, error_.message().c_str());
  }
  const Error& error() const& { return error_; }
  Error error() && { return std::move(error_); }
  Result context(std::string_view context) && {
    if (ok_) return {};
    return std::move(error_).context(context);
  }

 private:
  Error error_{ErrorCode::kInternal, ""};
  bool ok_ = true;
};

using Status = Result<void>;

template <typename... Args>
Error errno_error(fmt::format_string<Args...> format, Args&&... args) {
  int number = errno;
  return Error::from_errno(number, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace haneul

/// The value of a Result, or return its error from this function. May be nested.
#define TRY(...) HANEUL_TRY_WITH(HANEUL_TRY_NAME(__COUNTER__), __VA_ARGS__)
#define HANEUL_TRY_NAME(number) HANEUL_TRY_JOIN(try_result_, number)
#define HANEUL_TRY_JOIN(a, b) a##b
#define HANEUL_TRY_WITH(result, ...)                    \
  ({                                                    \
    auto result = (__VA_ARGS__);                        \
    if (!result.ok()) return std::move(result).error(); \
    std::move(result).value();                          \
  })

/// An invariant of our own code: its failure is a bug, and ends the process.
#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) ::haneul::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
