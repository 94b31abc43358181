// SPDX-License-Identifier: Apache-2.0
// The nft program: applies one text as one transaction, and tells what other firewalls are on the host.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace haneul::net {

class Nft {
 public:
  /// program empty: searched. kUnsupported without one.
  static Result<Nft> find(const std::filesystem::path& program);

  /// All of the text's commands take effect at one moment, or none of them does.
  Status apply(const std::string& text) const;
  /// Text as `nft list ARGUMENTS` prints it.
  Result<std::string> list(const std::vector<std::string>& arguments) const;

 private:
  explicit Nft(std::filesystem::path program) : program_(std::move(program)) {}
  std::filesystem::path program_;
};

/// From the text of `nft list chains`: base chains in the forward hook that drop by default, as
/// "ip filter FORWARD"; tables with the prefix given are left out.
std::vector<std::string> dropping_forward_chains(const std::string& listing, const std::string& own_prefix);

}  // namespace haneul::net
