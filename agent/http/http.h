// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 on a unix socket: a server with hard limits, and a small client. Only http/server.cc and
// http/client.cc know the library underneath.
#pragma once

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::agent {

struct HttpRequest {
  std::string method;
  std::string target;
  std::string body;
  std::string region;  ///< the header X-Haneul-Region
};

struct HttpReply {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  /// With status 101: the connection becomes a pipe to this descriptor.
  UniqueFd stream;
};

struct HttpLimits {
  size_t header_bytes = 16 << 10;
  size_t body_bytes = 8 << 20;
  /// For a whole request to arrive, once it has begun, and for a reply to be taken.
  std::chrono::milliseconds request_timeout = std::chrono::seconds(30);
  /// A connection that asks for nothing.
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(120);
  /// Streams are connections, too, and some are kept for requests.
  size_t connections = 256;
  size_t streams = 192;
  /// For each lane.
  unsigned threads = 8;
};

/// How long a request may take. Requests of one lane wait for one another only.
enum class Lane {
  kQuick,   ///< does not wait for anything but the disk
  kStream,  ///< connects to something that may not answer
  kSlow,    ///< copies much, or waits for a guest's data to become durable
};
inline constexpr size_t kLaneCount = 3;

/// One thread does all network work; handlers run on a pool for each lane, so a slow one blocks nobody else's request.
class HttpServer {
 public:
  /// Called on any of the pool's threads.
  using Handler = std::function<HttpReply(const HttpRequest&)>;
  /// The reply to what the server refuses by itself: a status and a sentence.
  using Refusal = std::function<HttpReply(unsigned, const std::string&)>;
  using LaneOf = std::function<Lane(const HttpRequest&)>;

  static Result<std::unique_ptr<HttpServer>> start(UniqueFd listener, HttpLimits limits, Handler handler,
                                                   LaneOf lane_of, Refusal refusal);
  /// Ends all connections and waits for the handlers that run.
  ~HttpServer();

  class Impl;

 private:
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// One request on a connection of its own. A signal whose handler sets `cut` ends it; others do not.
Result<HttpReply> http_request(const std::filesystem::path& socket, const HttpRequest& request,
                               std::chrono::milliseconds timeout = std::chrono::minutes(10),
                               const volatile std::sig_atomic_t* cut = nullptr);
/// A request that is to become a stream: the connection, and what came right behind the reply's head. A
/// refusal is a reply without a stream.
struct Upgraded {
  HttpReply reply;
  std::string first_bytes;
};
Result<Upgraded> http_upgrade(const std::filesystem::path& socket, const HttpRequest& request);

}  // namespace haneul::agent
