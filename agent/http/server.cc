// SPDX-License-Identifier: Apache-2.0
// Asio of Boost 1.74 uses std::exchange without including it.
#include <utility>

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <thread>

#include "agent/cloud/executor.h"
#include "agent/http/http.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Local = asio::local::stream_protocol;
using Stream = beast::basic_stream<Local>;
using boost::system::error_code;

constexpr const char* kServerName = "haneuld";

// One of something that is counted as long as this lives.
class Counted {
 public:
  explicit Counted(std::atomic<size_t>& count) : count_(&count) { ++*count_; }
  Counted(Counted&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
  Counted& operator=(Counted&&) = delete;
  ~Counted() {
    if (count_ != nullptr) --*count_;
  }

 private:
  std::atomic<size_t>* count_;
};

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpLimits limits, Handler handler, LaneOf lane_of, Refusal refusal)
      : limits_(limits),
        handler_(std::move(handler)),
        lane_of_(std::move(lane_of)),
        refusal_(std::move(refusal)) {
    for (auto& pool : pools_) pool = std::make_unique<Executor>(limits.threads);
  }
  ~Impl() { stop(); }

  Status listen(UniqueFd listener);
  void stop();

  const HttpLimits& limits() const { return limits_; }
  HttpReply handle(const HttpRequest& request) { return handler_(request); }
  HttpReply refuse(unsigned status, const std::string& sentence) { return refusal_(status, sentence); }
  asio::io_context& io() { return io_; }
  Executor& pool_for(const HttpRequest& request) { return *pools_[static_cast<size_t>(lane_of_(request))]; }
  std::atomic<size_t>& connections() { return connections_; }
  std::atomic<size_t>& streams() { return streams_; }
  std::string next_key() { return std::to_string(next_key_++); }

 private:
  void accept();

  const HttpLimits limits_;
  Handler handler_;
  LaneOf lane_of_;
  Refusal refusal_;
  std::atomic<size_t> connections_{0};
  std::atomic<size_t> streams_{0};
  uint64_t next_key_ = 0;
  asio::io_context io_{1};
  Local::acceptor acceptor_{io_};
  asio::steady_timer accept_pause_{io_};
  std::array<std::unique_ptr<Executor>, kLaneCount> pools_;
  std::thread thread_;
};

namespace {

// A pipe between the client's connection and a descriptor, both ways, until either side ends. The io
// thread's.
class Relay : public std::enable_shared_from_this<Relay> {
 public:
  Relay(Stream client, UniqueFd peer, std::string first, Counted connection, std::shared_ptr<Counted> stream)
      : client_(std::move(client)),
        peer_(client_.get_executor(), peer.release()),
        to_peer_(std::move(first)),
        size_(to_peer_.size()),
        connection_(std::move(connection)),
        stream_(std::move(stream)) {}

  void start() {
    client_.expires_never();
    await_hang_up();
    error_code error;
    client_.socket().non_blocking(true, error);
    if (!error) peer_.non_blocking(true, error);
    if (error) return close();
    serve_client();
    read_peer();
  }

 private:
  static constexpr size_t kChunk = 16 << 10;

  // A client that is gone altogether ends the stream, also when the peer takes no input and says nothing. One that
  // only has no more input still listens. What it sent before is passed on, as far as the peer takes it at once.
  void await_hang_up() {
    client_.socket().async_wait(Local::socket::wait_error, [self = shared_from_this()](error_code error) {
      if (error) return;
      while (self->move_piece() == Halt::kNone) {
      }
      self->close();
    });
  }
  enum class Halt { kNone, kNothingSent, kNoRoom, kEnd, kBroken };
  // By hand, without waiting: what was read and what the peer has of it must be known when the client goes.
  Halt move_piece() {
    error_code error;
    while (sent_ < size_) {
      sent_ += peer_.write_some(asio::buffer(to_peer_.data() + sent_, size_ - sent_), error);
      if (error) return error == asio::error::would_block ? Halt::kNoRoom : Halt::kBroken;
    }
    to_peer_.resize(kChunk);
    sent_ = 0;
    size_ = client_.socket().read_some(asio::buffer(to_peer_), error);
    if (error) return error == asio::error::would_block ? Halt::kNothingSent : Halt::kEnd;
    return Halt::kNone;
  }
  void serve_client() {
    auto next = [self = shared_from_this()](error_code error) {
      if (!error) self->serve_client();
    };
    switch (move_piece()) {
      case Halt::kNone:
      case Halt::kNoRoom:
        return peer_.async_wait(asio::posix::stream_descriptor::wait_write, next);
      case Halt::kNothingSent:
        return client_.socket().async_wait(Local::socket::wait_read, next);
      case Halt::kEnd:
        // No more input; what the peer still says is passed on.
        ::shutdown(peer_.native_handle(), SHUT_WR);
        return;
      case Halt::kBroken:
        return close();
    }
  }
  void read_peer() {
    to_client_.resize(kChunk);
    peer_.async_read_some(asio::buffer(to_client_),
                          [self = shared_from_this()](error_code error, size_t got) {
                            if (error) return self->close();
                            self->write_client(got);
                          });
  }
  void write_client(size_t size) {
    asio::async_write(client_.socket(), asio::buffer(to_client_.data(), size),
                      [self = shared_from_this()](error_code error, size_t) {
                        if (error) return self->close();
                        self->read_peer();
                      });
  }
  void close() {
    error_code ignored;
    client_.socket().shutdown(Local::socket::shutdown_both, ignored);
    client_.socket().close(ignored);
    peer_.close(ignored);
  }

  Stream client_;
  asio::posix::stream_descriptor peer_;
  std::string to_peer_;  // from sent_ to size_ it is still to be written
  size_t sent_ = 0;
  size_t size_;
  std::string to_client_;
  Counted connection_;
  std::shared_ptr<Counted> stream_;
};

// One connection: reads a request, has it handled on the pool, writes the reply, and again.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(HttpServer::Impl& server, Local::socket socket)
      : server_(server),
        key_(server.next_key()),
        stream_(std::move(socket)),
        buffer_(server.limits().header_bytes + (64 << 10)),
        counted_(server.connections()) {}

  void start() { wait(); }

 private:
  using Parser = http::request_parser<http::string_body>;
  using Response = http::response<http::string_body>;

  // Idle until the first byte of a request; from then on it has to come soon.
  void wait() {
    if (buffer_.size() > 0) return read();
    stream_.expires_after(server_.limits().idle_timeout);
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code error, size_t got) {
                              if (error) return;
                              self->buffer_.commit(got);
                              self->read();
                            });
  }

  // The library's own reading would let a client send small headers without end: its limit is for each. So
  // bytes are read here, counted, and given to its parser.
  void read() {
    parser_ = std::make_unique<Parser>();
    parser_->header_limit(static_cast<uint32_t>(server_.limits().header_bytes));
    parser_->body_limit(server_.limits().body_bytes);
    header_bytes_ = 0;
    stream_.expires_after(server_.limits().request_timeout);
    buffer_.size() > 0 ? feed() : read_more();
  }

  void read_more() {
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code error, size_t got) {
                              // The peer's end, a time limit, or ours: nobody is there to be answered.
                              if (error) return;
                              self->buffer_.commit(got);
                              self->feed();
                            });
  }

  void feed() {
    const size_t limit = server_.limits().header_bytes;
    while (!parser_->is_done()) {
      error_code error;
      bool in_header = !parser_->is_header_done();
      // Not beyond the header in one go, so that its size is known.
      parser_->eager(!in_header);
      size_t used = parser_->put(buffer_.data(), error);
      buffer_.consume(used);
      if (in_header) header_bytes_ += used;
      size_t unused = error == http::error::need_more ? buffer_.size() : 0;
      if (header_bytes_ > limit || unused > limit || (in_header && header_bytes_ + unused > limit)) {
        return refuse(431, "The request's header is larger than the server takes");
      }
      if (error == http::error::need_more) return read_more();
      if (error) return refused(error);
      if (buffer_.size() == 0 && !parser_->is_done()) return read_more();
    }
    handle();
  }

  void refused(error_code error) {
    if (error == http::error::header_limit)
      return refuse(431, "The request's header is larger than the server takes");
    if (error == http::error::body_limit)
      return refuse(413, "The request's body is larger than the server takes");
    refuse(400, "This is not an HTTP request: " + error.message());
  }

  void handle() {
    auto& message = parser_->get();
    HttpRequest request;
    request.method = std::string(message.method_string());
    request.target = std::string(message.target());
    request.region = std::string(message["X-Haneul-Region"]);
    request.body = std::move(message.body());
    keep_alive_ = message.keep_alive();
    stream_.expires_never();
    Executor& pool = server_.pool_for(request);
    pool.post(key_, [self = shared_from_this(), request = std::move(request)] {
      auto reply = std::make_shared<HttpReply>(self->server_.handle(request));
      asio::post(self->server_.io(), [self, reply] { self->reply(std::move(*reply)); });
    });
  }

  void refuse(unsigned status, const std::string& sentence) {
    keep_alive_ = false;
    reply(server_.refuse(status, sentence));
  }

  void reply(HttpReply reply) {
    if (reply.stream && server_.streams() >= server_.limits().streams)
      reply = server_.refuse(503, "There are too many streams: close one, or try again later");
    response_ = Response(static_cast<http::status>(reply.status), 11);
    response_.set(http::field::server, kServerName);
    bool upgrade = reply.status == 101;
    if (upgrade) {
      response_.set(http::field::connection, "Upgrade");
      response_.set(http::field::upgrade, "haneul-stream");
    } else {
      response_.set(http::field::content_type, reply.content_type);
      response_.keep_alive(keep_alive_);
      response_.body() = std::move(reply.body);
      response_.prepare_payload();
    }
    stream_.expires_after(server_.limits().request_timeout);
    auto counted = reply.stream ? std::make_shared<Counted>(server_.streams()) : nullptr;
    auto written = [self = shared_from_this(), counted,
                    peer = std::make_shared<UniqueFd>(std::move(reply.stream))](error_code error, size_t) {
      if (error) return;
      if (*peer) return self->become_stream(std::move(*peer), counted);
      if (!self->keep_alive_) return self->close();
      self->wait();
    };
    http::async_write(stream_, response_, std::move(written));
  }

  void become_stream(UniqueFd peer, std::shared_ptr<Counted> counted) {
    std::string first(static_cast<const char*>(buffer_.data().data()), buffer_.data().size());
    std::make_shared<Relay>(std::move(stream_), std::move(peer), std::move(first), std::move(counted_),
                            std::move(counted))
        ->start();
  }

  // What the client still sends is read and dropped for a moment: otherwise the kernel may discard the reply.
  void close() {
    error_code ignored;
    dropped_bytes_ = 0;
    stream_.socket().shutdown(Local::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(1));
    drain();
  }
  void drain() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code error, size_t got) {
                              self->dropped_bytes_ += got;
                              if (!error && self->dropped_bytes_ < kMaxDroppedBytes) self->drain();
                            });
  }

  static constexpr size_t kReadBytes = 16 << 10;
  static constexpr size_t kMaxDroppedBytes = 1 << 20;

  HttpServer::Impl& server_;
  const std::string key_;
  Stream stream_;
  beast::flat_buffer buffer_;
  std::unique_ptr<Parser> parser_;
  Response response_;
  bool keep_alive_ = false;
  size_t header_bytes_ = 0;
  size_t dropped_bytes_ = 0;
  Counted counted_;
};

}  // namespace

Status HttpServer::Impl::listen(UniqueFd listener) {
  error_code error;
  acceptor_.assign(Local(), listener.release(), error);
  if (error) return make_error(ErrorCode::kIo, "the control socket: {}", error.message());
  accept();
  thread_ = std::thread([this] { io_.run(); });
  return {};
}

void HttpServer::Impl::accept() {
  acceptor_.async_accept([this](error_code error, Local::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // Out of descriptors, most likely: some will come back.
      LOG_WARNING("accepting a connection: {}", error.message());
      accept_pause_.expires_after(std::chrono::milliseconds(100));
      return accept_pause_.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
    }
    // Too many: the newest is closed at once, which clients see as such.
    if (connections_ < limits_.connections) std::make_shared<Session>(*this, std::move(socket))->start();
    accept();
  });
}

void HttpServer::Impl::stop() {
  io_.stop();
  if (thread_.joinable()) thread_.join();
  for (auto& pool : pools_) pool->stop();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(UniqueFd listener, HttpLimits limits, Handler handler,
                                                      LaneOf lane_of, Refusal refusal) {
  auto impl = std::make_unique<Impl>(limits, std::move(handler), std::move(lane_of), std::move(refusal));
  TRY(impl->listen(std::move(listener)));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace haneul::agent
