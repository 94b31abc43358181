// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

namespace haneul {
namespace {

std::atomic<LogLevel> threshold{LogLevel::kInfo};
std::unique_ptr<LogLimiter> budget;
std::unique_ptr<LogLimiter> error_budget;
std::atomic<uint64_t> left_out{0};

constexpr size_t kMaxLine = 4096;

void append_escaped(std::string& line, std::string_view text) {
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
    if (line.size() >= kMaxLine) return;
  }
}

}  // namespace

void set_log_level(LogLevel level) {
  threshold.store(level, std::memory_order_relaxed);
}

bool log_enabled(LogLevel level) {
  return level >= threshold.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view text) {
  LogLimiter* limiter = level == LogLevel::kError ? error_budget.get() : budget.get();
  if (limiter != nullptr && !limiter->allow()) {
    left_out.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  static constexpr std::array<const char*, 4> kNames = {"debug", "info", "warn", "error"};
  // Not gmtime_r(), which reads the time zone from a file: a sandboxed process must not open any.
  auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  auto day = std::chrono::floor<std::chrono::days>(now);
  std::chrono::year_month_day date(day);
  std::chrono::hh_mm_ss time(now - day);
  std::string line =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {} ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  time.hours().count(), time.minutes().count(), time.seconds().count(),
                  time.subseconds().count(), kNames[static_cast<size_t>(level)]);
  append_escaped(line, text);
  if (uint64_t lines = left_out.exchange(0, std::memory_order_relaxed); lines != 0) {
    line += fmt::format(" ({} lines before this one were left out)", lines);
  }
  line += '\n';
  // One write, so that lines of several threads and processes do not mix. A log that cannot be written is
  // lost.
  ssize_t written = 0;
  do {
    written = ::write(STDERR_FILENO, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
}

void set_log_budget(unsigned lines, std::chrono::milliseconds interval) {
  budget = std::make_unique<LogLimiter>(interval, lines);
  error_budget = std::make_unique<LogLimiter>(interval, lines);
}

bool LogLimiter::allow(std::chrono::steady_clock::time_point time) {
  int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  int64_t paid = paid_until_ms_.load(std::memory_order_relaxed);
  while (paid <= now + ahead_.count()) {
    int64_t next = std::max(paid, now) + interval_.count();
    if (paid_until_ms_.compare_exchange_weak(paid, next, std::memory_order_relaxed)) return true;
  }
  return false;
}

}  // namespace haneul
