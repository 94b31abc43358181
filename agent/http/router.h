// SPDX-License-Identifier: Apache-2.0
// Router: what each path of the control socket does. POST /OPERATION with a JSON body is an operation of the
// API; GET /status, GET /console/ID and GET /tunnel/ID/PORT are Haneul's own.
#pragma once

#include <string>

#include "agent/cloud/cloud.h"
#include "agent/http/http.h"

namespace haneul::agent {

/// Thread-safe. Knows no sockets, so it is tested without any.
class Router {
 public:
  /// `facts` are the members of GET /status that never change.
  Router(Cloud& cloud, Json facts) : cloud_(cloud), facts_(std::move(facts)) {}

  HttpReply handle(const HttpRequest& request);
  static Lane lane_of(const HttpRequest& request);
  /// {"Error":{"Code":…,"Message":…},"RequestId":…}
  static HttpReply error_reply(unsigned status, std::string_view code, const std::string& message);

 private:
  Answer<HttpReply> route(const HttpRequest& request);
  Answer<HttpReply> operation(const HttpRequest& request, const Caller& caller, std::string_view name);
  Answer<HttpReply> console(const Caller& caller, const std::string& id);
  Answer<HttpReply> tunnel(const Caller& caller, const std::string& rest);

  Cloud& cloud_;
  const Json facts_;
};

}  // namespace haneul::agent
