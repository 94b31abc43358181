// SPDX-License-Identifier: Apache-2.0
// Key pairs, and the files of their private keys: NAME-KEYPAIRID.pem, so that key pairs of the same name in
// two clouds do not overwrite each other.
#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli/commands.h"
#include "agent/cli/defaults.h"
#include "agent/cli/progress.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

std::string file_safe(std::string name) {
  for (char& c : name) {
    if (c == '/' || c == '.' || c == ' ') c = '_';
  }
  return name;
}

Result<std::filesystem::path> key_folder() {
  std::filesystem::path folder = config_folder() / "keys";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Error::from_errno(error.value(), fmt::format("cannot make {}", folder.string()));
  if (::chmod(folder.c_str(), 0700) != 0) return errno_error("chmod of {}", folder.string());
  return folder;
}

// The key pair is made last, so that it is not lost for want of a place to put it.
Result<std::filesystem::path> create_and_save(Api& api, const std::string& name, const std::string& type,
                                              std::filesystem::path file, Json& reply) {
  std::filesystem::path folder = TRY(key_folder());
  if (!file.empty()) {
    UniqueFd place = TRY(open_file(file, O_WRONLY | O_CREAT | O_EXCL, 0600));
    std::filesystem::remove(file);
  }
  reply = TRY(api.call("CreateKeyPair", {{"KeyName", name}, {"KeyType", type}}));
  if (file.empty()) file = folder / fmt::format("{}-{}.pem", file_safe(name), text_of(reply, "KeyPairId"));
  Status saved = replace_file(file, text_of(reply, "KeyMaterial"), 0600);
  if (saved.ok()) return file;
  (void)api.call("DeleteKeyPair", {{"KeyName", name}});
  return std::move(saved).error();
}

std::string user_name() {
  passwd entry{};
  passwd* found = nullptr;
  std::string buffer(16 << 10, '\0');
  ::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found);
  return found == nullptr ? std::to_string(::getuid()) : found->pw_name;
}

Result<Json> find_key(Api& api, const std::string& name) {
  Json reply = TRY(api.call("DescribeKeyPairs", Json::object()));
  for (const Json& key : reply["KeyPairs"]) {
    if (text_of(key, "KeyName") == name) return key;
  }
  return Json();
}

}  // namespace

std::vector<std::filesystem::path> private_key_files(Api& api, const std::string& key_name) {
  std::vector<std::filesystem::path> files;
  if (key_name.empty()) return files;
  auto key = find_key(api, key_name);
  std::string id = key.ok() && key->is_object() ? text_of(*key, "KeyPairId") : "";
  std::error_code error;
  std::string prefix = file_safe(key_name) + "-key-";
  for (const auto& entry : std::filesystem::directory_iterator(config_folder() / "keys", error)) {
    std::string file = entry.path().filename().string();
    if (!file.starts_with(prefix) || !file.ends_with(".pem")) continue;
    bool exact = !id.empty() && file == fmt::format("{}-{}.pem", file_safe(key_name), id);
    files.insert(exact ? files.begin() : files.end(), entry.path());
  }
  // More would make sshd refuse before the right one was tried.
  if (files.size() > 4) files.resize(4);
  return files;
}

Result<std::string> default_key(Api& api) {
  std::string name = fmt::format("haneul-{}", user_name());
  Json key = TRY(find_key(api, name));
  if (key.is_object()) {
    std::filesystem::path file =
        TRY(key_folder()) / fmt::format("{}-{}.pem", file_safe(name), text_of(key, "KeyPairId"));
    if (::access(file.c_str(), R_OK) == 0) return name;
    // Its private half is gone; instances launched with it keep the public one.
    TRY(api.call("DeleteKeyPair", {{"KeyName", name}}));
  }
  Json reply;
  auto file = TRY(create_and_save(api, name, "ed25519", {}, reply));
  fmt::print(stderr, "made the key pair {}: {}\n", name, file.string());
  return name;
}

Result<int> key_create_command(Api& api, const Shared& shared, const std::string& name,
                               const std::string& type, const std::filesystem::path& file) {
  Json reply;
  std::filesystem::path saved = TRY(create_and_save(api, name, type, file, reply));
  if (shared.json) {
    reply.erase("KeyMaterial");
    reply["File"] = saved.string();
    print_json(reply);
  } else {
    fmt::print("{} {}\n", text_of(reply, "KeyPairId"), saved.string());
  }
  return kCliOk;
}

Result<int> key_import_command(Api& api, const Shared& shared, const std::string& name,
                               const std::filesystem::path& file) {
  std::string material = TRY(read_file(file, 64 << 10));
  Json reply =
      TRY(api.call("ImportKeyPair", {{"KeyName", name}, {"PublicKeyMaterial", to_base64(material)}}));
  if (shared.json) {
    print_json(reply);
  } else {
    fmt::print("{} {}\n", text_of(reply, "KeyPairId"), text_of(reply, "KeyFingerprint"));
  }
  return kCliOk;
}

Result<int> key_list_command(Api& api, const Shared& shared) {
  Json reply = TRY(api.call("DescribeKeyPairs", Json::object()));
  if (shared.json) {
    print_json(reply);
    return kCliOk;
  }
  Table table({"NAME", "ID", "TYPE", "FINGERPRINT"});
  for (const Json& key : reply["KeyPairs"]) {
    table.add({text_of(key, "KeyName"), text_of(key, "KeyPairId"), text_of(key, "KeyType"),
               text_of(key, "KeyFingerprint")});
  }
  table.print();
  return kCliOk;
}

// The private keys stay: they still open instances that were launched with them.
Result<int> key_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& names) {
  return remove_each(shared, names, "KeyName", [&](const std::string& name) -> Result<Removed> {
    Json key = TRY(find_key(api, name));
    if (!key.is_object()) return make_error(ErrorCode::kNotFound, "no key pair has the name '{}'", name);
    return Removed{name, TRY(api.call("DeleteKeyPair", {{"KeyName", name}}))};
  });
}

}  // namespace haneul::agent
