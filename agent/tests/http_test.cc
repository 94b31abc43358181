// SPDX-License-Identifier: Apache-2.0
// The HTTP server against clients that misbehave, and the paths of the control socket.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "agent/http/router.h"
#include "agent/tests/world.h"
#include "base/file.h"
#include "base/socket.h"

namespace haneul::agent::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

HttpRequest get(const std::string& target) {
  return {.method = "GET", .target = target, .body = "", .region = ""};
}
HttpRequest post_of(const std::string& operation) {
  return {.method = "POST", .target = "/" + operation, .body = "{}", .region = ""};
}

// Sends bytes and gives all that comes back until the server closes, or for at most ten seconds.
class RawClient {
 public:
  explicit RawClient(const std::filesystem::path& socket) : fd_(connect_unix(socket, SOCK_STREAM).value()) {}

  bool send(std::string_view text) {
    while (!text.empty()) {
      ssize_t sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  std::string receive_all() {
    std::string text;
    char buffer[4096];
    pollfd wait{fd_.get(), POLLIN, 0};
    while (::poll(&wait, 1, 10000) > 0) {
      ssize_t got = ::read(fd_.get(), buffer, sizeof buffer);
      if (got <= 0) return text;
      text.append(buffer, static_cast<size_t>(got));
    }
    return text + "<no end>";
  }
  /// Up to the end of one reply without a body, or with the body's text.
  std::string receive_until(std::string_view end) {
    std::string text;
    char byte = 0;
    pollfd wait{fd_.get(), POLLIN, 0};
    while (text.find(end) == std::string::npos && ::poll(&wait, 1, 10000) > 0 &&
           ::read(fd_.get(), &byte, 1) == 1)
      text += byte;
    return text;
  }
  UniqueFd& fd() { return fd_; }

 private:
  UniqueFd fd_;
};

class HttpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    limits_.request_timeout = std::chrono::milliseconds(300);
    limits_.idle_timeout = std::chrono::milliseconds(600);
    limits_.body_bytes = 1 << 20;
    limits_.connections = 16;
    limits_.streams = 4;
    limits_.threads = 2;
    socket_ = world_.folder / "http.sock";
    router_ = std::make_unique<Router>(*world_.cloud, Json{{"version", "test"}});
    server_ = HttpServer::start(
                  listen_unix(socket_, SOCK_STREAM).value(), limits_,
                  [this](const HttpRequest& request) {
                    if (request.target == "/slow") {
                      for (int i = 0; i < 100 || (hold_slow_ && i < 3000); ++i)
                        std::this_thread::sleep_for(std::chrono::milliseconds(10));
                      return HttpReply{};
                    }
                    return router_->handle(request);
                  },
                  [](const HttpRequest& request) {
                    return request.target == "/slow" ? Lane::kSlow : Router::lane_of(request);
                  },
                  [](unsigned status, const std::string& sentence) {
                    return Router::error_reply(status, "MalformedQueryString", sentence);
                  })
                  .value();
  }

  HttpReply post(const std::string& operation, const std::string& body, const std::string& region = "") {
    return http_request(socket_,
                        {.method = "POST", .target = "/" + operation, .body = body, .region = region})
        .value();
  }

  World world_;
  HttpLimits limits_;
  std::filesystem::path socket_;
  std::unique_ptr<Router> router_;
  std::atomic<bool> hold_slow_{false};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpTest, OperationIsAPostWithJson) {
  HttpReply reply = post("DescribeRegions", R"({"RegionNames":["eu-west-1"]})");
  EXPECT_EQ(reply.status, 200U);
  EXPECT_EQ(reply.content_type, "application/json");
  EXPECT_EQ(
      reply.body,
      R"({"Regions":[{"Endpoint":"ec2.eu-west-1.amazonaws.com","RegionName":"eu-west-1","OptInStatus":"opt-in-not-required"}]})"
      "\n");
  EXPECT_EQ(post("DescribeRegions", "").status, 200U);
}

TEST_F(HttpTest, CurlsFormContentTypeIsFine) {
  RawClient client(socket_);
  client.send(
      "POST /DescribeRegions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
      "application/x-www-form-urlencoded\r\n"
      "Content-Length: 2\r\nConnection: close\r\n\r\n{}");
  EXPECT_THAT(client.receive_all(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpTest, ErrorsHaveCodeAndSentence) {
  HttpReply reply = post("RunInstances", R"({"ImageId":"ami-0123456789abcdef0","MinCount":1,"MaxCount":1})");
  EXPECT_EQ(reply.status, 400U);
  EXPECT_EQ(
      reply.body,
      R"({"Error":{"Code":"InvalidAMIID.NotFound","Message":"The image id '[ami-0123456789abcdef0]' does not exist"}})"
      "\n");
  EXPECT_THAT(
      post("Fly", "{}").body,
      HasSubstr("\"InvalidAction\",\"Message\":\"The action Fly is not valid for this web service.\""));
  EXPECT_THAT(post("DescribeRegions", "{").body, HasSubstr("The body is not valid JSON"));
  EXPECT_THAT(post("DescribeRegions", std::string(40, '[')).body, HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(post("DescribeRegions", "{}", "mars").body, HasSubstr("Invalid region: [mars]"));
  world_.register_tiny();
  EXPECT_EQ(post("RunInstances", R"({"ImageId":"tiny","MinCount":1,"MaxCount":1,"DryRun":true})").status,
            412U);
}

TEST_F(HttpTest, ConnectionIsKeptAndTakesPipelinedRequests) {
  RawClient client(socket_);
  std::string one = "POST /DescribeRegions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
  client.send(one + one + one.substr(0, 30));
  EXPECT_THAT(client.receive_until("]}\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(client.receive_until("]}\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  client.send(one.substr(30));
  EXPECT_THAT(client.receive_until("]}\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpTest, HalfARequestIsGivenUp) {
  for (const char* half : {"POST /Descr", "POST /X HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", ""}) {
    RawClient client(socket_);
    client.send(half);
    EXPECT_EQ(client.receive_all(), "") << half;
  }
  EXPECT_EQ(post("DescribeRegions", "{}").status, 200U);
}

TEST_F(HttpTest, EndlessHeadersAreRefused) {
  RawClient client(socket_);
  client.send("POST /X HTTP/1.1\r\n");
  std::string line = "X-Filler: " + std::string(1000, 'x') + "\r\n";
  bool refused = false;
  for (int i = 0; i < 100'000 && !refused; ++i) refused = !client.send(line);
  EXPECT_TRUE(refused);
  RawClient modest(socket_);
  modest.send("POST /X HTTP/1.1\r\n");
  for (int i = 0; i < 20; ++i) modest.send(line);
  EXPECT_THAT(modest.receive_all(), StartsWith("HTTP/1.1 431 "));
  RawClient one_line(socket_);
  one_line.send("POST /" + std::string(100'000, 'a'));
  EXPECT_THAT(one_line.receive_all(), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpTest, LargeBodyIsRefused) {
  RawClient client(socket_);
  client.send("POST /X HTTP/1.1\r\nContent-Length: 2000000000\r\n\r\n");
  EXPECT_THAT(client.receive_all(), StartsWith("HTTP/1.1 413 "));
  RawClient chunked(socket_);
  chunked.send("POST /X HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
  for (int i = 0; i < 40 && chunked.send(chunk); ++i) {
  }
  EXPECT_THAT(chunked.receive_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpTest, RubbishIsAnsweredAndClosed) {
  for (std::string text : {"hello\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                           "POST /X HTTP/1.1\r\nContent-Length: -1\r\n\r\n"}) {
    RawClient client(socket_);
    client.send(text);
    EXPECT_THAT(client.receive_all(), StartsWith("HTTP/1.1 400 ")) << text;
  }
}

TEST_F(HttpTest, AHangingClientAndASlowHandlerBlockNobodyElse) {
  RawClient hanging(socket_);
  hanging.send("POST /X HTTP/1.1\r\nContent-Length: 5\r\n\r\n");
  RawClient slow(socket_);
  slow.send("POST /slow HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  hold_slow_ = true;
  auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(post("DescribeRegions", "{}").status, 200U);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(25))
      << "it waited for the slow one";
  hold_slow_ = false;
}

TEST_F(HttpTest, SlowRequestsHoldUpNobodyElse) {
  std::vector<RawClient> slow;
  for (int i = 0; i < 6; ++i) {
    slow.emplace_back(socket_);
    slow.back().send("POST /slow HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  }
  auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(post("DescribeRegions", "{}").status, 200U);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(2000));
}

TEST_F(HttpTest, WhatMayWaitHasALaneOfItsOwn) {
  auto lane = [](const std::string& method, const std::string& target) {
    return Router::lane_of({.method = method, .target = target, .body = "", .region = ""});
  };
  EXPECT_EQ(lane("GET", "/status"), Lane::kQuick);
  EXPECT_EQ(lane("GET", "/tunnel/i-0123456789abcdef0/22"), Lane::kStream);
  EXPECT_EQ(lane("GET", "/console/i-0123456789abcdef0"), Lane::kStream);
  EXPECT_EQ(lane("POST", "/CreateSnapshot?x"), Lane::kSlow);
  EXPECT_EQ(lane("POST", "/RegisterImage"), Lane::kSlow);
  EXPECT_EQ(lane("POST", "/RunInstances"), Lane::kQuick);
  EXPECT_EQ(lane("POST", ""), Lane::kQuick);
}

// A console that takes no input and says nothing, as that of a guest that hangs.
TEST_F(HttpTest, StreamsAreCountedAndEndWithTheirClients) {
  world_.register_tiny();
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  UniqueFd listener = listen_unix(world_.keeper.layout.console_socket(id), SOCK_STREAM).value();
  auto open = [&] { return http_upgrade(socket_, get("/console/" + id)).value(); };
  std::vector<Upgraded> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(open());
  for (const Upgraded& stream : streams) ASSERT_EQ(stream.reply.status, 101U);
  HttpReply refused = open().reply;
  EXPECT_EQ(refused.status, 503U);
  EXPECT_THAT(refused.body, HasSubstr("There are too many streams"));
  EXPECT_EQ(post("DescribeRegions", "{}").status, 200U);

  // The first fills every buffer on the way, then goes.
  int first = streams[0].reply.stream.get();
  ASSERT_EQ(::fcntl(first, F_SETFL, O_NONBLOCK), 0);
  std::string text(1 << 16, 'x');
  for (int quiet = 0; quiet < 20; ++quiet) {
    if (::write(first, text.data(), text.size()) > 0) quiet = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  streams.erase(streams.begin());
  EXPECT_TRUE(World::eventually([&] { return open().reply.status == 101; }));
}

// More than one turn of the relay takes; its client is gone before the console reads the first of it.
TEST_F(HttpTest, WhatAClientSentBeforeItWentIsPassedOn) {
  world_.register_tiny();
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  UniqueFd listener = listen_unix(world_.keeper.layout.console_socket(id), SOCK_STREAM).value();
  const std::string sent(100'000, 'k');
  {
    Upgraded stream = http_upgrade(socket_, get("/console/" + id)).value();
    ASSERT_EQ(stream.reply.status, 101U);
    ASSERT_TRUE(write_all(stream.reply.stream.get(), std::as_bytes(std::span(sent))).ok());
  }
  UniqueFd console(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(console);
  std::string got;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(console.get(), buffer, sizeof buffer)) > 0;)
    got.append(buffer, static_cast<size_t>(n));
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size() << " bytes came";
}

TEST_F(HttpTest, TooManyConnectionsAreClosedAndLaterTakenAgain) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 16; ++i) clients.emplace_back(socket_);
  for (RawClient& client : clients) {
    client.send("POST /DescribeRegions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    client.receive_until("]}\n");
  }
  RawClient extra(socket_);
  EXPECT_EQ(extra.receive_all(), "");
  clients.clear();
  for (int i = 0; i < 100; ++i) {
    auto reply = http_request(socket_, post_of("DescribeRegions"));
    if (reply.ok()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  FAIL() << "no connection is taken any more";
}

TEST_F(HttpTest, ConsoleIsAStreamBothWays) {
  world_.register_tiny();
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  UniqueFd listener = listen_unix(world_.keeper.layout.console_socket(id), SOCK_STREAM).value();
  std::thread guest([&] {
    UniqueFd peer = accept_unix(listener.get()).value();
    (void)!::write(peer.get(), "login: ", 7);
    char typed[5] = {};
    EXPECT_EQ(::recv(peer.get(), typed, 5, MSG_WAITALL), 5);
    EXPECT_EQ(std::string(typed, 5), "root\n");
    std::string flood(1 << 20, 'x');
    (void)write_all(peer.get(), std::as_bytes(std::span(flood)));
  });
  Upgraded upgraded = http_upgrade(socket_, get("/console/" + id)).value();
  ASSERT_EQ(upgraded.reply.status, 101U);
  std::string text = upgraded.first_bytes;
  char buffer[65536];
  (void)!::write(upgraded.reply.stream.get(), "root\n", 5);
  while (true) {
    ssize_t got = ::read(upgraded.reply.stream.get(), buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  guest.join();
  EXPECT_THAT(text, StartsWith("login: xxx"));
  EXPECT_EQ(text.size(), 7U + (1 << 20));
}

TEST_F(HttpTest, StreamsOfInstancesThatDoNotRunAreRefused) {
  auto refused = [&](const std::string& target) { return http_upgrade(socket_, get(target)).value().reply; };
  EXPECT_THAT(refused("/console/i-0123456789abcdef0").body, HasSubstr("InvalidInstanceID.NotFound"));
  EXPECT_THAT(refused("/console/../../etc").body, HasSubstr("InvalidInstanceID.Malformed"));
  EXPECT_THAT(refused("/tunnel/i-0123456789abcdef0/22").body, HasSubstr("InvalidInstanceID.NotFound"));
  EXPECT_THAT(refused("/tunnel/i-0123456789abcdef0/0").body,
              HasSubstr("The port '0' is not one of 1 to 65535"));
  EXPECT_THAT(refused("/tunnel/i-0123456789abcdef0").body, HasSubstr("The port '' is not one of 1 to 65535"));
}

TEST_F(HttpTest, ManyClientsAtOnce) {
  world_.register_tiny();
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        auto reply = http_request(socket_, post_of("DescribeInstances"));
        if (reply.ok() && reply->status == 200) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 200);
}

}  // namespace
}  // namespace haneul::agent::testing
