// SPDX-License-Identifier: Apache-2.0
// Shapes: every structure of the API is a plain struct whose members() names its members once. From that
// follow a description of it (for the encodings and for checking), and its conversion from and to JSON
// values.
//
// A member has EC2's API name ("InstanceIds": JSON), a name on the wire ("InstanceId": elements of XML, and
// with a capital letter the parameters of the Query protocol), and a C++ type:
//   std::string, int64_t, double, bool, Timestamp, Blob, a struct with members(), std::vector or
//   std::optional.
// An optional that is empty and a plain value that is required differ: see MemberName::required.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "agent/ops/answer.h"

namespace haneul::agent {

/// Members keep the order in which they were declared.
using Json = nlohmann::ordered_json;

/// Milliseconds since 1970, UTC. Text: "2026-01-31T12:00:00.000Z".
struct Timestamp {
  int64_t ms = 0;
  auto operator<=>(const Timestamp&) const = default;
};
std::string to_text(Timestamp time);
std::optional<Timestamp> timestamp_from(std::string_view text);
Timestamp now();

/// Bytes; base64 in every encoding.
struct Blob {
  std::string bytes;
  bool operator==(const Blob&) const = default;
};
std::string to_base64(std::string_view bytes);
/// nullopt if the text is not base64. White space is skipped, as clients fold lines.
std::optional<std::string> from_base64(std::string_view text);

enum class Kind { kString, kInteger, kDouble, kBoolean, kTimestamp, kBlob, kList, kStructure };

struct Shape;
struct Type {
  Kind kind = Kind::kString;
  const Type* element = nullptr;  ///< of a list
  const Shape* shape = nullptr;   ///< of a structure
};
struct Member {
  std::string name;
  std::string wire;
  std::string query;
  bool required = false;
  bool own = false;
  const Type* type = nullptr;
};
struct Shape {
  std::vector<Member> members;
  const Member* find(std::string_view name) const;
};

/// How a struct names a member. wire: the name with a small first letter; query: wire with a capital one.
/// own: Haneul's, unknown to EC2; the JSON encoding has it, and EC2's encodings leave it out.
struct MemberName {
  const char* name;
  const char* wire = nullptr;
  const char* query = nullptr;
  bool required = false;
  bool own = false;
};

/// Checks a value against its type: unknown members, missing ones, wrong kinds. Paths count from 1, as
/// EC2's clients do.
Answer<void> check_value(const Type& type, const Json& value, const std::string& path);

namespace detail {

template <typename T>
struct Unwrapped {
  using type = T;
};
template <typename T>
struct Unwrapped<std::optional<T>> {
  using type = T;
};
template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

Member make_member(const MemberName& name, const Type& type);

}  // namespace detail

template <typename T>
const Type& type_of();

template <typename T>
const Shape& shape_of() {
  static const Shape shape = [] {
    Shape built;
    T::members([&built]<typename S, typename V>(const MemberName& name, V S::*) {
      built.members.push_back(detail::make_member(name, type_of<typename detail::Unwrapped<V>::type>()));
    });
    return built;
  }();
  return shape;
}

template <typename T>
const Type& type_of() {
  static const Type type = [] {
    if constexpr (std::is_same_v<T, std::string>) {
      return Type{.kind = Kind::kString};
    } else if constexpr (std::is_same_v<T, bool>) {
      return Type{.kind = Kind::kBoolean};
    } else if constexpr (std::is_same_v<T, int64_t>) {
      return Type{.kind = Kind::kInteger};
    } else if constexpr (std::is_same_v<T, double>) {
      return Type{.kind = Kind::kDouble};
    } else if constexpr (std::is_same_v<T, Timestamp>) {
      return Type{.kind = Kind::kTimestamp};
    } else if constexpr (std::is_same_v<T, Blob>) {
      return Type{.kind = Kind::kBlob};
    } else if constexpr (detail::IsVector<T>::value) {
      return Type{.kind = Kind::kList, .element = &type_of<typename T::value_type>()};
    } else {
      return Type{.kind = Kind::kStructure, .shape = &shape_of<T>()};
    }
  }();
  return type;
}

template <typename T>
Json encode(const T& value) {
  if constexpr (std::is_same_v<T, Timestamp>) {
    return to_text(value);
  } else if constexpr (std::is_same_v<T, Blob>) {
    return to_base64(value.bytes);
  } else if constexpr (detail::IsVector<T>::value) {
    Json list = Json::array();
    for (const auto& item : value) list.push_back(encode(item));
    return list;
  } else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string>) {
    Json object = Json::object();
    T::members([&]<typename S, typename V>(const MemberName& name, V S::*member) {
      if constexpr (detail::IsOptional<V>::value) {
        if (value.*member) object[name.name] = encode(*(value.*member));
      } else {
        object[name.name] = encode(value.*member);
      }
    });
    return object;
  } else {
    return value;
  }
}

/// From a value that passed check_value().
template <typename T>
T decode(const Json& value) {
  if constexpr (std::is_same_v<T, Timestamp>) {
    return timestamp_from(value.get_ref<const std::string&>()).value_or(Timestamp{});
  } else if constexpr (std::is_same_v<T, Blob>) {
    return Blob{from_base64(value.get_ref<const std::string&>()).value_or("")};
  } else if constexpr (detail::IsVector<T>::value) {
    T list;
    for (const Json& item : value) list.push_back(decode<typename T::value_type>(item));
    return list;
  } else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string>) {
    T object;
    T::members([&]<typename S, typename V>(const MemberName& name, V S::*member) {
      auto found = value.find(name.name);
      if (found == value.end() || found->is_null()) return;
      object.*member = decode<typename detail::Unwrapped<V>::type>(*found);
    });
    return object;
  } else {
    return value.template get<T>();
  }
}

/// Checks and converts at once.
template <typename T>
Answer<T> decode_checked(const Json& value) {
  TRY(check_value(type_of<T>(), value, ""));
  return decode<T>(value);
}

/// JSON text to a value: bounded depth, no exceptions, UTF-8 only.
constexpr size_t kMaxJsonDepth = 32;
Answer<Json> parse_json(std::string_view text);
std::string to_text(const Json& value, int indent = -1);

}  // namespace haneul::agent
