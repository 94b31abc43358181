// SPDX-License-Identifier: Apache-2.0
#include "net/nft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace haneul::net {
namespace {

TEST(Nft, FindsOtherFirewallsThatDropForwardedPackets) {
  std::string listing = R"(table ip filter {
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
	}
	chain INPUT {
		type filter hook input priority 0; policy drop;
	}
}
table inet haneul-han0 {
	chain forward {
		type filter hook forward priority 0; policy drop;
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
	}
}
table inet mine {
	chain f {
		type filter hook forward priority 0; policy accept;
	}
}
)";
  EXPECT_THAT(dropping_forward_chains(listing, "haneul-"), testing::ElementsAre("ip filter FORWARD"));
  EXPECT_THAT(dropping_forward_chains("", "haneul-"), testing::IsEmpty());
}

TEST(Nft, AProgramThatIsNotThere) {
  auto nft = Nft::find("/nonexistent/nft");
  ASSERT_FALSE(nft.ok());
  EXPECT_EQ(nft.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(nft.error().message(), "/nonexistent/nft is not a program that can be run");
}

TEST(Nft, SaysWhatNftComplainsAbout) {
  auto nft = Nft::find("/bin/false").value();
  EXPECT_EQ(nft.apply("").error().message(), "the firewall rules were not changed: nft says: exit code 1");
}

}  // namespace
}  // namespace haneul::net
