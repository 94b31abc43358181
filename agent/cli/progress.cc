// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/progress.h"

#include <fmt/format.h>
#include <libsmartcols.h>
#include <unistd.h>

#include <cstdio>

namespace haneul::agent {

Progress::Progress(std::string what)
    : what_(std::move(what)),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

void Progress::clear() {
  if (said_ && terminal_) fmt::print(stderr, "\r\033[K");
  said_ = false;
}

namespace {

std::string bar(int percent) {
  if (percent < 0) return "";
  constexpr int kWidth = 20;
  auto full = static_cast<size_t>(percent * kWidth / 100);
  return fmt::format(" [{}{}] {}%", std::string(full, '#'), std::string(kWidth - full, '.'), percent);
}

}  // namespace

void Progress::tick(int percent) {
  auto now = std::chrono::steady_clock::now();
  auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - start_);
  if (since < std::chrono::milliseconds(300)) return;
  if (!terminal_) {
    if (!said_) fmt::print(stderr, "{} ...\n", what_);
    said_ = true;
    return;
  }
  if (said_ && now - shown_ < std::chrono::milliseconds(100)) return;
  static constexpr const char* kTurns = "|/-\\";
  fmt::print(stderr, "\r\033[K{} {}{} {}.{} s", kTurns[turn_++ % 4], what_, bar(percent),
             since.count() / 1000, since.count() % 1000 / 100);
  std::fflush(stderr);
  shown_ = now;
  said_ = true;
}

void Table::print() const {
  libscols_table* table = ::scols_new_table();
  if (table == nullptr) return;
  for (const std::string& heading : headings_) ::scols_table_new_column(table, heading.c_str(), 0, 0);
  for (const auto& row : rows_) {
    libscols_line* line = ::scols_table_new_line(table, nullptr);
    for (size_t column = 0; line != nullptr && column < row.size(); ++column) {
      ::scols_line_set_data(line, column, row[column].empty() ? "-" : row[column].c_str());
    }
  }
  ::scols_print_table(table);
  ::scols_unref_table(table);
  std::fflush(stdout);
}

}  // namespace haneul::agent
