// SPDX-License-Identifier: Apache-2.0
// Progress and tables: what the CLI shows. Progress goes to standard error: on a terminal a line with a
// spinner and the time, elsewhere one plain line when it takes longer than a moment.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace haneul::agent {

class Progress {
 public:
  explicit Progress(std::string what);
  /// Clears the line.
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// To be called every now and then; with a percentage, if there is one, a bar is shown.
  void tick(int percent = -1);
  void clear();

 private:
  const std::string what_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point shown_;
  bool said_ = false;
  unsigned turn_ = 0;
};

/// Rows of text under headings, in columns.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print() const;

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace haneul::agent
