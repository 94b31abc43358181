// SPDX-License-Identifier: Apache-2.0
#include "agent/ops/shape.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <time.h>

#include <cctype>
#include <chrono>
#include <cmath>

namespace haneul::agent {
namespace {

Answer<void> wrong_kind(const std::string& path, std::string_view wanted) {
  return api_error(ApiCode::kInvalidParameterValue, "The parameter {} must be {}",
                   path.empty() ? "body" : path, wanted);
}

std::string below(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

Answer<void> check_structure(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_object()) return wrong_kind(path, "an object");
  for (const auto& [key, item] : value.items()) {
    const Member* member = shape.find(key);
    if (member == nullptr) {
      return api_error(ApiCode::kUnknownParameter, "The parameter {} is not recognized", below(path, key));
    }
    if (!item.is_null()) TRY(check_value(*member->type, item, below(path, key)));
  }
  for (const Member& member : shape.members) {
    if (!member.required) continue;
    auto found = value.find(member.name);
    if (found == value.end() || found->is_null() || (found->is_array() && found->empty())) {
      return api_error(ApiCode::kMissingParameter, "The request must contain the parameter {}",
                       below(path, member.name));
    }
  }
  return {};
}

std::string first_letter(std::string text, int (*convert)(int)) {
  if (!text.empty()) text[0] = static_cast<char>(convert(static_cast<unsigned char>(text[0])));
  return text;
}

// Brackets outside strings, counted before the parser sees them.
bool too_deep(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) return true;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

}  // namespace

const Member* Shape::find(std::string_view name) const {
  for (const Member& member : members) {
    if (member.name == name) return &member;
  }
  return nullptr;
}

Member detail::make_member(const MemberName& name, const Type& type) {
  Member member{
      .name = name.name, .wire = {}, .query = {}, .required = name.required, .own = name.own, .type = &type};
  member.wire = name.wire != nullptr ? name.wire : first_letter(name.name, &std::tolower);
  member.query = name.query != nullptr ? name.query : first_letter(member.wire, &std::toupper);
  return member;
}

Answer<void> check_value(const Type& type, const Json& value, const std::string& path) {
  switch (type.kind) {
    case Kind::kString:
      return value.is_string() ? Answer<void>() : wrong_kind(path, "a string");
    case Kind::kInteger: {
      if (!value.is_number_integer()) return wrong_kind(path, "an integer");
      bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX;
      return too_large ? wrong_kind(path, "a 64-bit integer") : Answer<void>();
    }
    case Kind::kDouble:
      return value.is_number() ? Answer<void>() : wrong_kind(path, "a number");
    case Kind::kBoolean:
      return value.is_boolean() ? Answer<void>() : wrong_kind(path, "true or false");
    case Kind::kTimestamp:
      if (value.is_string() && timestamp_from(value.get_ref<const std::string&>())) return {};
      return wrong_kind(path, "a time as in 2026-01-31T12:00:00Z");
    case Kind::kBlob:
      if (value.is_string() && from_base64(value.get_ref<const std::string&>())) return {};
      return wrong_kind(path, "base64 text");
    case Kind::kList: {
      if (!value.is_array()) return wrong_kind(path, "a list");
      size_t index = 0;
      for (const Json& item : value)
        TRY(check_value(*type.element, item, fmt::format("{}.{}", path, ++index)));
      return {};
    }
    case Kind::kStructure:
      return check_structure(*type.shape, value, path);
  }
  return {};
}

Timestamp now() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::milliseconds>(since).count()};
}

std::string to_text(Timestamp time) {
  time_t seconds = static_cast<time_t>(time.ms >= 0 ? time.ms / 1000 : 0);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     time.ms >= 0 ? time.ms % 1000 : 0);
}

std::optional<Timestamp> timestamp_from(std::string_view text) {
  std::string copy(text);
  tm parts{};
  const char* rest = ::strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return std::nullopt;
  int64_t ms = static_cast<int64_t>(::timegm(&parts)) * 1000;
  if (*rest == '.') {
    int64_t scale = 100;
    for (++rest; std::isdigit(static_cast<unsigned char>(*rest)) != 0; ++rest, scale /= 10) {
      ms += (*rest - '0') * scale;
    }
  }
  std::string_view zone(rest);
  if (zone != "Z" && zone != "+00:00") return std::nullopt;
  return Timestamp{ms};
}

std::string to_base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  int length =
      ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string packed;
  for (char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) packed += c;
  }
  if (packed.size() % 4 != 0) return std::nullopt;
  if (packed.empty()) return "";
  size_t padding = packed.ends_with("==") ? 2 : packed.ends_with("=") ? 1 : 0;
  if (packed.find('=') < packed.size() - padding) return std::nullopt;
  std::string bytes(packed.size() / 4 * 3, '\0');
  int length = ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                 reinterpret_cast<const unsigned char*>(packed.data()),
                                 static_cast<int>(packed.size()));
  if (length < 0) return std::nullopt;
  bytes.resize(static_cast<size_t>(length) - padding);
  return bytes;
}

Answer<Json> parse_json(std::string_view text) {
  if (too_deep(text)) {
    return api_error(ApiCode::kMalformedQueryString, "The JSON is nested deeper than {} levels",
                     kMaxJsonDepth);
  }
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) return api_error(ApiCode::kMalformedQueryString, "The body is not valid JSON");
  return value;
}

std::string to_text(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace haneul::agent
