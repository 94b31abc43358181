// SPDX-License-Identifier: Apache-2.0
#include "net/names.h"

#include <gtest/gtest.h>

#include "net/fabric.h"

namespace haneul::net {
namespace {

TEST(Names, FitAnInterfaceNameAndStayTheSame) {
  EXPECT_EQ(bridge_name("han0", "a"), "hnl-han0-a");
  std::string tap = tap_name("han0", "i-0123456789abcdef0");
  EXPECT_EQ(tap.size(), 15u);
  EXPECT_TRUE(tap.starts_with("t-han0-"));
  EXPECT_EQ(tap, tap_name("han0", "i-0123456789abcdef0"));
  EXPECT_NE(tap, tap_name("han0", "i-0123456789abcdef1"));
}

TEST(Names, MacsAreLocalAndUnicast) {
  Mac mac = mac_for("eni-1");
  EXPECT_EQ(mac.bytes[0], 0x02);
  EXPECT_EQ(mac, mac_for("eni-1"));
  EXPECT_NE(mac, mac_for("eni-2"));
  EXPECT_NE(bridge_mac("hnl-han0-a"), bridge_mac("hnl-han0-b"));
}

TEST(Names, TagOfAFolder) {
  EXPECT_EQ(tag_for("/var/lib/haneul").size(), 4u);
  EXPECT_EQ(tag_for("/var/lib/haneul"), tag_for("/var/lib/./haneul/"));
  EXPECT_NE(tag_for("/var/lib/haneul"), tag_for("/var/lib/haneul2"));
}

TEST(Names, MarkThereAndBack) {
  EXPECT_EQ((Mark{"han0", {}}.text()), "haneul:han0");
  EXPECT_EQ((Mark{"han0", {"eth0", "wlan0"}}.text()), "haneul:han0 forwarding=eth0,wlan0");
  auto mark = Mark::parse("haneul:han0 forwarding=eth0,wlan0");
  ASSERT_TRUE(mark);
  EXPECT_EQ(mark->tag, "han0");
  EXPECT_EQ(mark->forwarding, (std::vector<std::string>{"eth0", "wlan0"}));
  EXPECT_EQ(Mark::parse("haneul:x")->forwarding.size(), 0u);
  EXPECT_FALSE(Mark::parse(""));
  EXPECT_FALSE(Mark::parse("docker"));
  Mark many{"han0", std::vector<std::string>(40, "interface-name")};
  EXPECT_LE(many.text().size(), 255u);
  EXPECT_EQ(Mark::parse(many.text())->forwarding.back(), "interface-name");
}

TEST(Names, AMarkNamesTheStateFolder) {
  Mark mark{"han0", {"eth0"}, owner_of("/srv/my cloud/")};
  EXPECT_EQ(mark.text(), "haneul:han0 forwarding=eth0 state=/srv/my cloud");
  auto parsed = Mark::parse(mark.text());
  EXPECT_EQ(parsed->owner, "/srv/my cloud");
  EXPECT_EQ(parsed->forwarding, std::vector<std::string>{"eth0"});
  EXPECT_EQ(Mark::parse("haneul:han0")->owner, "") << "an older daemon's";
  EXPECT_EQ((Mark{"x", {}, "/a"}.text()), "haneul:x state=/a");

  std::string deep = owner_of("/" + std::string(300, 'd'));
  EXPECT_EQ(deep.size(), 17u);
  EXPECT_NE(deep, owner_of("/" + std::string(300, 'e')));
  EXPECT_EQ(owner_of("/a\nb")[0], '#');
  Mark many{"han0", std::vector<std::string>(40, "interface-name"), owner_of("/" + std::string(110, 'd'))};
  EXPECT_LE(many.text().size(), 255u);
  EXPECT_EQ(Mark::parse(many.text())->owner, many.owner);
  EXPECT_NE(bridge_mac("hnl-han0-a", "/a"), bridge_mac("hnl-han0-a", "/b"));
}

}  // namespace
}  // namespace haneul::net
