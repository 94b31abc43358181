// SPDX-License-Identifier: Apache-2.0
#include "net/address.h"

#include <gtest/gtest.h>

namespace haneul::net {
namespace {

TEST(Address, Ipv4ThereAndBack) {
  EXPECT_EQ(Ipv4::parse("172.31.0.5").value().value, 0xac1f0005u);
  EXPECT_EQ(Ipv4{0xac1f0005}.text(), "172.31.0.5");
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", " 1.2.3.4", "0x1.2.3.4", "1.2.3.4\n"}) {
    EXPECT_EQ(Ipv4::parse(bad).error().code(), ErrorCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(Ipv4::parse("1.2.3").error().message(), "'1.2.3' is not an IPv4 address");
}

TEST(Address, Prefix) {
  auto prefix = Ipv4Prefix::parse("172.31.16.0/20").value();
  EXPECT_EQ(prefix.text(), "172.31.16.0/20");
  EXPECT_TRUE(prefix.contains(Ipv4::parse("172.31.31.255").value()));
  EXPECT_FALSE(prefix.contains(Ipv4::parse("172.31.32.0").value()));
  EXPECT_TRUE(prefix.overlaps(Ipv4Prefix::parse("172.16.0.0/12").value()));
  EXPECT_TRUE(prefix.overlaps(Ipv4Prefix::parse("172.31.17.0/24").value()));
  EXPECT_FALSE(prefix.overlaps(Ipv4Prefix::parse("172.31.0.0/20").value()));
  EXPECT_TRUE(Ipv4Prefix{}.overlaps(prefix));
  EXPECT_EQ(Ipv4Prefix::parse("172.31.0.5/20").error().message(),
            "'172.31.0.5/20' has bits set outside its prefix length");
  for (const char* bad : {"172.31.0.0", "172.31.0.0/", "172.31.0.0/33", "172.31.0.0/-1", "172.31.0.0/20x"}) {
    EXPECT_EQ(Ipv4Prefix::parse(bad).error().code(), ErrorCode::kInvalidArgument) << bad;
  }
}

TEST(Address, MacThereAndBack) {
  EXPECT_EQ(Mac::parse("02:1a:2B:3c:4d:5e").value().text(), "02:1a:2b:3c:4d:5e");
  EXPECT_TRUE(Mac::parse("01:00:5e:00:00:01").value().multicast());
  for (const char* bad :
       {"", "02:1a:2b:3c:4d", "02-1a-2b-3c-4d-5e", "02:1a:2b:3c:4d:5g", "2:1a:2b:3c:4d:5e0"}) {
    EXPECT_EQ(Mac::parse(bad).error().code(), ErrorCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace haneul::net
