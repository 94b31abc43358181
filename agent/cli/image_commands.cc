// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "agent/cli/commands.h"
#include "agent/cli/defaults.h"
#include "agent/cli/progress.h"
#include "agent/cli/wait.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

// $HANEUL_IMAGES, an installation, or the source tree that this program was built in.
Result<std::filesystem::path> find_builder(const std::string& name) {
  std::vector<std::filesystem::path> folders;
  const char* chosen = std::getenv("HANEUL_IMAGES");  // NOLINT(concurrency-mt-unsafe)
  if (chosen != nullptr && *chosen != '\0') folders.emplace_back(chosen);
  std::filesystem::path program = own_path().parent_path();
  folders.push_back(program.parent_path() / "share" / "haneul" / "images");
  for (auto up = program; up.has_relative_path(); up = up.parent_path()) folders.push_back(up / "images");
  for (const auto& folder : folders) {
    if (::access((folder / name / "build").c_str(), X_OK) == 0) return folder / name / "build";
  }
  return make_error(ErrorCode::kNotFound, "no builder for the image '{}' (HANEUL_IMAGES names their folder)",
                    name);
}

// Its output goes to our standard error, so that standard output has the result only.
Result<int> run_program(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) {
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return errno_error("waitpid");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A rebuilt image takes the place of the one of its name, when it is there. Instances of that one keep it.
Result<std::string> register_folder(Api& api, const std::filesystem::path& folder, const std::string& name) {
  TRY(read_file(folder / "image.json", 64 << 10).context("this is not an image's folder"));
  Json request{{"ImageLocation", folder.string()}, {"Name", name}, {"Replace", true}};
  Json registered = TRY(call_with_progress(api, "RegisterImage", request, "registering " + name));
  return text_of(registered, "ImageId");
}

void print_id(const Shared& shared, const std::string& id, const std::string& name) {
  if (shared.json) {
    print_json(Json{{"ImageId", id}, {"Name", name}});
  } else {
    fmt::print("{} {}\n", id, name);
  }
}

}  // namespace

Result<int> image_build_command(Api& api, const Shared& shared, const std::string& name,
                                const std::string& kernel) {
  std::filesystem::path builder = TRY(find_builder(name));
  TRY(api.status());
  std::filesystem::path out = cache_folder() / "images" / (kernel.empty() ? name : name + "-" + kernel);
  std::error_code error;
  std::filesystem::create_directories(out.parent_path(), error);
  if (error)
    return Error::from_errno(error.value(), fmt::format("cannot make {}", out.parent_path().string()));
  std::vector<std::string> words = {builder.string(), "--out", out.string()};
  if (!kernel.empty()) words.insert(words.end(), {"--kernel", kernel});
  int status = TRY(run_program(std::move(words)));
  if (status == kCliInterrupted) return kCliInterrupted;
  if (status == 64) return kCliUsage;  // it has said what it does not take
  if (status != 0) return make_error(ErrorCode::kIo, "the builder of {} ended with status {}", name, status);
  print_id(shared, TRY(register_folder(api, out, name)), name);
  return kCliOk;
}

Result<int> image_register_command(Api& api, const Shared& shared, const std::filesystem::path& folder,
                                   const std::string& name) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::canonical(folder, error);
  if (error) return Error::from_errno(error.value(), folder.string());
  std::string chosen = name;
  if (chosen.empty()) {
    auto manifest = parse_json(TRY(read_file(absolute / "image.json", 64 << 10)));
    if (!manifest.ok() || !manifest->is_object()) {
      return make_error(ErrorCode::kInvalidArgument, "{}/image.json is not JSON", absolute.string());
    }
    chosen = text_of(*manifest, "name");
  }
  print_id(shared, TRY(register_folder(api, absolute, chosen)), chosen);
  return kCliOk;
}

Result<int> image_list_command(Api& api, const Shared& shared) {
  Json reply = TRY(api.call("DescribeImages", Json::object()));
  if (shared.json) {
    print_json(reply);
    return kCliOk;
  }
  if (reply["Images"].empty()) {
    fmt::print(stderr, "no images (haneul image build tiny makes one)\n");
    return kCliOk;
  }
  Table table({"ID", "NAME", "STATE", "CREATED", "DESCRIPTION"});
  for (const Json& image : reply["Images"]) {
    table.add({text_of(image, "ImageId"), text_of(image, "Name"), text_of(image, "State"),
               text_of(image, "CreationDate").substr(0, 19), text_of(image, "Description")});
  }
  table.print();
  return kCliOk;
}

Result<int> image_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& images) {
  return remove_each(shared, images, "ImageId", [&](const std::string& name) -> Result<Removed> {
    std::string id = text_of(TRY(api.image(name)), "ImageId");
    return Removed{id, TRY(api.call("DeregisterImage", {{"ImageId", id}}))};
  });
}

}  // namespace haneul::agent
