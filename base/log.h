// SPDX-License-Identifier: Apache-2.0
// The log: one line an event on standard error, "2026-01-31T12:00:00.123Z warn disk vol-1: text".
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <string_view>

namespace haneul {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Lines below this level are not written. Thread-safe. The start value is kInfo.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);

/// Writes one line. Line feeds and control characters in the text are escaped, so that a guest or a client
/// cannot forge lines. Thread-safe.
void log_line(LogLevel level, std::string_view text);

/// For a process that a guest can make say things: at most so many lines at once, and one more every interval.
/// Errors have as much again of their own, which nothing else uses up. What is left out is counted in the next line.
/// Before other threads log.
void set_log_budget(unsigned lines, std::chrono::milliseconds interval);

/// Lets through `burst` at once and one more every interval, for lines that a guest can cause. Thread-safe.
class LogLimiter {
 public:
  explicit LogLimiter(std::chrono::milliseconds interval = std::chrono::seconds(10), unsigned burst = 1)
      : interval_(interval), ahead_(interval * (burst - 1)) {}
  bool allow() { return allow(std::chrono::steady_clock::now()); }
  bool allow(std::chrono::steady_clock::time_point time);

 private:
  std::chrono::milliseconds interval_;
  std::chrono::milliseconds ahead_;
  // Up to when all that was let through is paid for.
  std::atomic<int64_t> paid_until_ms_{0};
};

}  // namespace haneul

#define HANEUL_LOG(level, ...)                                                             \
  do {                                                                                     \
    if (::haneul::log_enabled(level)) ::haneul::log_line(level, fmt::format(__VA_ARGS__)); \
  } while (false)
#define LOG_DEBUG(...) HANEUL_LOG(::haneul::LogLevel::kDebug, __VA_ARGS__)
#define LOG_INFO(...) HANEUL_LOG(::haneul::LogLevel::kInfo, __VA_ARGS__)
#define LOG_WARNING(...) HANEUL_LOG(::haneul::LogLevel::kWarning, __VA_ARGS__)
#define LOG_ERROR(...) HANEUL_LOG(::haneul::LogLevel::kError, __VA_ARGS__)
