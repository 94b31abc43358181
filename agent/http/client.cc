// SPDX-License-Identifier: Apache-2.0
// Asio of Boost 1.74 uses std::exchange without including it.
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "agent/http/http.h"
#include "base/socket.h"

namespace haneul::agent {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Local = asio::local::stream_protocol;
using boost::system::error_code;
using Message = http::request<http::string_body>;
using Parser = http::response_parser<http::string_body>;

// A blocking connection; its descriptor has the time limit.
struct Connection {
  asio::io_context io{1};
  Local::socket socket{io};
  boost::beast::flat_buffer buffer;
};

Status open_connection(Connection& connection, const std::filesystem::path& path,
                       std::chrono::milliseconds timeout) {
  UniqueFd fd = TRY(connect_unix(path, SOCK_STREAM));
  timeval limit{.tv_sec = timeout.count() / 1000, .tv_usec = timeout.count() % 1000 * 1000};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  error_code error;
  connection.socket.assign(Local(), fd.release(), error);
  if (error) return make_error(ErrorCode::kIo, "{}: {}", path.string(), error.message());
  // Where a descriptor's time limit has run out, the library waits on without one, unless it believes that the
  // descriptor does not block.
  connection.socket.non_blocking(true, error);
  int flags = ::fcntl(connection.socket.native_handle(), F_GETFL);
  if (error || flags < 0 || ::fcntl(connection.socket.native_handle(), F_SETFL, flags & ~O_NONBLOCK) != 0)
    return make_error(ErrorCode::kIo, "{}: its time limit cannot be set", path.string());
  return {};
}

Message message_of(const HttpRequest& request) {
  Message message;
  message.method_string(request.method);
  message.target(request.target);
  message.version(11);
  message.set(http::field::host, "localhost");
  message.set(http::field::content_type, "application/json");
  if (!request.region.empty()) message.set("X-Haneul-Region", request.region);
  message.body() = request.body;
  return message;
}

// What a signal interrupts is gone on with (being stopped and continued is one), unless the signal was to end it.
template <typename Step>
error_code persistently(const volatile std::sig_atomic_t* cut, Step step) {
  error_code error;
  do {
    error = {};
    step(error);
  } while (error == asio::error::interrupted && (cut == nullptr || *cut == 0));
  return error;
}

Status io_error(const error_code& error) {
  if (error == asio::error::would_block || error == asio::error::try_again) {
    return make_error(ErrorCode::kTimeout, "haneuld did not answer in time");
  }
  return make_error(ErrorCode::kIo, "the connection to haneuld broke: {}", error.message());
}

HttpReply reply_of(Parser& parser) {
  HttpReply reply;
  reply.status = parser.get().result_int();
  reply.content_type = std::string(parser.get()[http::field::content_type]);
  reply.body = std::move(parser.get().body());
  return reply;
}

}  // namespace

Result<HttpReply> http_request(const std::filesystem::path& socket, const HttpRequest& request,
                               std::chrono::milliseconds timeout, const volatile std::sig_atomic_t* cut) {
  Connection connection;
  TRY(open_connection(connection, socket, timeout));
  Message message = message_of(request);
  message.keep_alive(false);
  message.prepare_payload();
  http::request_serializer<http::string_body> serializer(message);
  error_code error =
      persistently(cut, [&](error_code& failed) { http::write(connection.socket, serializer, failed); });
  // A server that refuses a large request may close before it took it all; its reply is still there.
  if (error && error != asio::error::broken_pipe) TRY(io_error(error));
  Parser parser;
  parser.body_limit(1 << 30);
  error = persistently(
      cut, [&](error_code& failed) { http::read(connection.socket, connection.buffer, parser, failed); });
  if (error) TRY(io_error(error));
  return reply_of(parser);
}

Result<Upgraded> http_upgrade(const std::filesystem::path& socket, const HttpRequest& request) {
  Connection connection;
  TRY(open_connection(connection, socket, std::chrono::seconds(30)));
  Message message = message_of(request);
  message.set(http::field::connection, "Upgrade");
  message.set(http::field::upgrade, "haneul-stream");
  error_code error;
  http::write(connection.socket, message, error);
  if (error) TRY(io_error(error));
  Parser parser;
  http::read_header(connection.socket, connection.buffer, parser, error);
  if (error) TRY(io_error(error));
  Upgraded upgraded;
  if (parser.get().result_int() != 101) {
    http::read(connection.socket, connection.buffer, parser, error);
    if (error) TRY(io_error(error));
    upgraded.reply = reply_of(parser);
    return upgraded;
  }
  upgraded.reply.status = 101;
  auto rest = connection.buffer.data();
  upgraded.first_bytes.assign(static_cast<const char*>(rest.data()), rest.size());
  // Released from the library, and without its time limit.
  int fd = connection.socket.release(error);
  if (error) TRY(io_error(error));
  upgraded.reply.stream.reset(fd);
  timeval none{};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
  return upgraded;
}

}  // namespace haneul::agent
