// SPDX-License-Identifier: Apache-2.0
#include "agent/http/router.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <charconv>

#include "agent/cloud/operations.h"
#include "base/log.h"
#include "base/socket.h"

namespace haneul::agent {
namespace {

constexpr int kConnectTimeoutMs = 5000;

HttpReply json_reply(const Json& value) {
  return {.status = 200, .body = to_text(value) + "\n", .content_type = "application/json", .stream = {}};
}

HttpReply stream_reply(UniqueFd fd) {
  return {.status = 101, .body = "", .content_type = "", .stream = std::move(fd)};
}

std::string path_of(const HttpRequest& request) {
  return request.target.substr(0, request.target.find('?'));
}

Result<UniqueFd> connect_tcp(const std::string& address, uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_error("socket");
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(port);
  ::inet_pton(AF_INET, address.c_str(), &peer.sin_addr);
  int result = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer);
  if (result != 0 && errno != EINPROGRESS) return errno_error("connecting to {}:{}", address, port);
  pollfd wait{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&wait, 1, kConnectTimeoutMs) == 0) {
    return make_error(ErrorCode::kTimeout, "{}:{} does not answer", address, port);
  }
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return Error::from_errno(error, fmt::format("connecting to {}:{}", address, port));
  int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A guest that is gone says no goodbye: after two minutes of silence the kernel ends the connection.
  int idle_s = 60;
  int between_s = 20;
  int probes = 3;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  return fd;
}

}  // namespace

HttpReply Router::error_reply(unsigned status, std::string_view code, const std::string& message) {
  Json error{{"Error", {{"Code", code}, {"Message", message}}}};
  return {.status = status, .body = to_text(error) + "\n", .content_type = "application/json", .stream = {}};
}

Lane Router::lane_of(const HttpRequest& request) {
  if (request.method == "GET") return path_of(request) == "/status" ? Lane::kQuick : Lane::kStream;
  std::string path = path_of(request);
  const Operation* operation = find_operation(std::string_view(path).substr(path.starts_with("/") ? 1 : 0));
  return operation != nullptr && operation->slow ? Lane::kSlow : Lane::kQuick;
}

HttpReply Router::handle(const HttpRequest& request) {
  Answer<HttpReply> reply = route(request);
  if (reply.ok()) return std::move(reply).value();
  const ApiError& error = reply.error();
  if (error.code() == ApiCode::kInternalError) LOG_ERROR("{}: {}", request.target, error.message());
  return error_reply(http_status(error.code()), name(error.code()), error.message());
}

Answer<HttpReply> Router::route(const HttpRequest& request) {
  Caller caller{.region =
                    request.region.empty() ? std::string(cloud_.places().default_region()) : request.region};
  if (cloud_.places().region(caller.region) == nullptr) {
    std::vector<std::string> names;
    for (const RegionPlace& region : cloud_.places().regions()) names.push_back(region.name);
    return api_error(ApiCode::kInvalidParameterValue, "Invalid region: [{}]; this cloud has {}",
                     caller.region, fmt::join(names, ", "));
  }
  std::string path = path_of(request);
  if (request.method == "GET" && path == "/status") {
    Json status = facts_;
    status.update(cloud_.summary());
    return json_reply(status);
  }
  if (request.method == "GET" && path.starts_with("/console/")) return console(caller, path.substr(9));
  if (request.method == "GET" && path.starts_with("/tunnel/")) return tunnel(caller, path.substr(8));
  if (request.method == "POST" && path.starts_with("/")) return operation(request, caller, path.substr(1));
  return api_error(ApiCode::kInvalidAction,
                   "{} {} is nothing that this socket serves: operations are POST /NAME", request.method,
                   path);
}

Answer<HttpReply> Router::operation(const HttpRequest& request, const Caller& caller,
                                    std::string_view operation_name) {
  const Operation* operation = find_operation(operation_name);
  if (operation == nullptr) {
    return api_error(ApiCode::kInvalidAction, "The action {} is not valid for this web service.",
                     operation_name);
  }
  Json body = Json::object();
  bool blank = request.body.find_first_not_of(" \t\r\n") == std::string::npos;
  if (!blank) body = TRY(parse_json(request.body));
  return json_reply(TRY(operation->call(cloud_, caller, body)));
}

Answer<HttpReply> Router::console(const Caller& caller, const std::string& id) {
  std::filesystem::path socket = TRY(cloud_.console_socket(caller, id));
  return stream_reply(TRY(connect_unix(socket, SOCK_STREAM)));
}

Answer<HttpReply> Router::tunnel(const Caller& caller, const std::string& rest) {
  size_t slash = rest.find('/');
  std::string port_text = slash == std::string::npos ? "" : rest.substr(slash + 1);
  uint16_t port = 0;
  auto parsed = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (port == 0 || parsed.ec != std::errc() || parsed.ptr != port_text.data() + port_text.size()) {
    return api_error(ApiCode::kInvalidParameterValue, "The port '{}' is not one of 1 to 65535", port_text);
  }
  std::string address = TRY(cloud_.instance_address(caller, rest.substr(0, slash)));
  auto connected = connect_tcp(address, port);
  if (!connected.ok()) return ApiError(ApiCode::kUnavailable, connected.error().message());
  return stream_reply(std::move(connected).value());
}

}  // namespace haneul::agent
