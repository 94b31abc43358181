// SPDX-License-Identifier: Apache-2.0
// haneul: the command line. Here are the commands' names and options; what they do is in *_commands.cc.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

#include "agent/cli/arguments.h"
#include "agent/cli/defaults.h"

namespace haneul::agent {

extern const char* const kBashCompletion;
extern const char* const kZshCompletion;

namespace {

CLI::App* add_command(CLI::App& parent, Action& chosen, const std::string& name, const std::string& help,
                      Action action) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->callback([&chosen, action = std::move(action)] { chosen = action; });
  return command;
}

}  // namespace

CLI::App* add(CLI::App& parent, Arguments& args, Action& chosen, const std::string& name,
              const std::string& help, Action action) {
  CLI::App* command = add_command(parent, chosen, name, help, std::move(action));
  command->add_flag("--json", args.shared.json, "print JSON");
  return command;
}

CLI::App* add_without_json(CLI::App& parent, Action& chosen, const std::string& name, const std::string& help,
                           Action action) {
  CLI::App* command = add_command(parent, chosen, name, help, std::move(action));
  command
      ->add_flag_callback(
          "--json",
          [name] { throw CLI::ValidationError(fmt::format("haneul {} has nothing to print as JSON", name)); })
      ->group("");
  return command;
}

namespace {

void add_run(CLI::App& app, Arguments& args, Action& chosen) {
  RunOptions& run = args.run;
  auto* command = add(app, args, chosen, "run", "launch instances from an image",
                      [&args](Api& api) { return run_command(api, args.shared, args.run); });
  command->add_option("image", run.image, "an image's id or name")->required();
  command->add_option("-t,--type", run.type, "instance type (haneul type ls)")->capture_default_str();
  command->add_option("-n,--name", run.name, "the tag Name");
  command->add_option("-k,--key", run.key, "key pair; without one, your default key pair, made on first use");
  command->add_option("-c,--count", run.count, "how many")->check(CLI::Range(1, 1000));
  command->add_option("--zone", run.zone, "Availability Zone, as us-east-1b or b");
  command->add_option("--user-data", run.user_data, "a file that the first boot runs")
      ->check(CLI::ExistingFile);
  command->add_option("--size", run.root_gib, "GiB of the root volume")->check(CLI::Range(1, 16384));
  command
      ->add_option("--volume", run.volumes,
                   "besides the root, repeatable: 20G:/dev/sdf:keep, snap-...:/dev/sdg, ephemeral0:4G")
      ->allow_extra_args(false);
  command->add_option("--tag", run.tags, "KEY=VALUE, repeatable")->allow_extra_args(false);
  command->add_flag("--protect", run.protect, "refuse termination");
  command->add_flag("--terminate-on-shutdown", run.terminate_on_shutdown,
                    "poweroff in the guest terminates it");
  command->add_flag("-w,--wait", run.wait, "until it is running");
  command->add_option("--timeout", run.timeout_s, "seconds to wait at most")->capture_default_str();
}

void add_change(CLI::App& app, Arguments& args, Action& chosen, const std::string& name,
                const std::string& help, Result<int> (*function)(Api&, const Shared&, const ChangeOptions&)) {
  auto* command = add(app, args, chosen, name, help,
                      [&args, function](Api& api) { return function(api, args.shared, args.change); });
  command->add_option("instance", args.change.instances, "ids or names")->required();
  if (name == "reboot") return;
  command->add_flag("-w,--wait", args.change.wait, "until it is done");
  command->add_option("--timeout", args.change.timeout_s, "seconds to wait at most")->capture_default_str();
  if (name == "stop") command->add_flag("-f,--force", args.change.force, "switch off at once");
}

void add_instances(CLI::App& app, Arguments& args, Action& chosen) {
  add_run(app, args, chosen);
  auto* ls = add(app, args, chosen, "ls", "list instances",
                 [&args](Api& api) { return list_command(api, args.shared, args.all); });
  ls->add_flag("-a,--all", args.all, "terminated ones too");
  auto* show = add(app, args, chosen, "show", "everything about an instance",
                   [&args](Api& api) { return show_command(api, args.shared, args.one); });
  show->add_option("instance", args.one, "id or name")->required();
  add_change(app, args, chosen, "start", "start stopped instances", &start_command);
  add_change(app, args, chosen, "stop", "stop instances: power button, later the switch", &stop_command);
  add_change(app, args, chosen, "reboot", "shut down and start again", &reboot_command);
  add_change(app, args, chosen, "terminate", "end instances and delete their root volumes",
             &terminate_command);
  auto* tag =
      add(app, args, chosen, "tag", "set or remove tags of an instance, volume, snapshot, image or key pair",
          [&args](Api& api) { return tag_command(api, args.shared, args.one, args.many, args.remove); });
  tag->add_option("resource", args.one, "id, or an instance's name")->required();
  tag->add_option("tags", args.many, "KEY=VALUE, or KEY with --remove")->required();
  tag->add_flag("--remove", args.remove, "remove them");
}

void add_connections(CLI::App& app, Arguments& args, Action& chosen) {
  auto* console = add(app, args, chosen, "console", "an instance's serial console; Ctrl-] leaves",
                      [&args](Api& api) { return console_command(api, args.shared, args.one, args.follow); });
  console->add_option("instance", args.one, "id or name")->required();
  console->add_flag("-f,--follow", args.follow, "show what comes, until the instance ends; no input")
      ->excludes("--json");
  auto* ssh = add_without_json(app, chosen, "ssh", "log in, or run a command",
                               [&args](Api& api) { return ssh_command(api, args.ssh); });
  ssh->add_option("instance", args.ssh.instance, "id or name")->required();
  ssh->add_option("-l,--user", args.ssh.user, "user; the image's by default");
  ssh->add_option("-i,--identity", args.ssh.identity, "private key file")->check(CLI::ExistingFile);
  ssh->add_option("--timeout", args.ssh.timeout_s, "seconds to wait for the instance's sshd")
      ->capture_default_str();
  ssh->add_option("command", args.ssh.command, "after --: what to run there");
  auto* proxy =
      add_without_json(app, chosen, "proxy", "standard input and output to a port, for ssh's ProxyCommand",
                       [&args](Api& api) { return proxy_command(api, args.one, args.port); });
  proxy->add_option("instance", args.one, "id or name")->required();
  proxy->add_option("port", args.port, "TCP port")->capture_default_str()->check(CLI::Range(1, 65535));
}

void add_keys(CLI::App& app, Arguments& args, Action& chosen) {
  CLI::App& key = *app.add_subcommand("key", "key pairs")->require_subcommand(1);
  auto* create = add(
      key, args, chosen, "create", "make a key pair and save its private key",
      [&args](Api& api) { return key_create_command(api, args.shared, args.name, args.kind, args.file); });
  create->add_option("name", args.name, "its name")->required();
  create->add_option("--type", args.kind, "ed25519 or rsa")
      ->capture_default_str()
      ->check(CLI::IsMember({"ed25519", "rsa"}));
  create->add_option("-o,--output", args.file, "file for the private key");
  auto* import = add(key, args, chosen, "import", "import a public key", [&args](Api& api) {
    return key_import_command(api, args.shared, args.name, args.file);
  });
  import->add_option("name", args.name, "its name")->required();
  import->add_option("file", args.file, "the public key")->required()->check(CLI::ExistingFile);
  add(key, args, chosen, "ls", "list key pairs",
      [&args](Api& api) { return key_list_command(api, args.shared); });
  auto* rm = add(key, args, chosen, "rm", "delete key pairs; saved private keys stay",
                 [&args](Api& api) { return key_remove_command(api, args.shared, args.many); });
  rm->add_option("name", args.many, "names")->required();
}

void add_others(CLI::App& app, Arguments& args, Action& chosen) {
  CLI::App& type = *app.add_subcommand("type", "instance types")->require_subcommand(1);
  add(type, args, chosen, "ls", "list instance types",
      [&args](Api& api) { return type_list_command(api, args.shared); });
  CLI::App& zone = *app.add_subcommand("zone", "regions and Availability Zones")->require_subcommand(1);
  add(zone, args, chosen, "ls", "list the zones of all regions (haneuld --regions)",
      [&args](Api& api) { return zone_list_command(api, args.shared); });
  add(app, args, chosen, "status", "what the daemon says of itself",
      [&args](Api& api) { return status_command(api, args.shared); });
  add(app, args, chosen, "doctor", "whether this machine can run instances",
      [&args](Api& api) { return doctor_command(api, args.shared); });
  auto* completion = add_without_json(
      app, chosen, "completion", "a shell's completion script", [&args](Api&) -> Result<int> {
        fmt::print("{}", args.one == "bash" ? kBashCompletion : kZshCompletion);
        return kCliOk;
      });
  completion->add_option("shell", args.one, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  // For those scripts.
  auto* complete = add_without_json(app, chosen, "complete", "what may come next", [&app, &args](Api& api) {
    return complete_command(app, api, args.many);
  });
  complete->group("")->add_option("words", args.many, "after --: the words of a command line");
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? "" : value;
}

int run(int argc, char** argv) {
  Arguments args;
  Action chosen;
  CLI::App app{"haneul: EC2's instances on this machine", "haneul"};
  app.set_version_flag("--version", "haneul " HANEUL_VERSION);
  app.add_option("--socket", args.socket, "the daemon's socket (or HANEUL_SOCKET)");
  app.add_option("--region", args.region, "region (or HANEUL_REGION)");
  app.require_subcommand(1);
  app.fallthrough();
  add_instances(app, args, chosen);
  add_connections(app, args, chosen);
  add_images(app, args, chosen);
  add_volumes(app, args, chosen);
  add_snapshots(app, args, chosen);
  add_keys(app, args, chosen);
  add_others(app, args, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kCliOk : kCliUsage;
  }
  if (args.socket.empty()) args.socket = environment("HANEUL_SOCKET");
  if (args.socket.empty()) args.socket = find_socket().string();
  if (args.region.empty()) args.region = environment("HANEUL_REGION");
  Api api(std::filesystem::absolute(args.socket), args.region);
  Result<int> status = chosen(api);
  if (status.ok()) return *status;
  fmt::print(stderr, "haneul: {}\n", status.error().message());
  return status_of(status.error());
}

}  // namespace
}  // namespace haneul::agent

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  return haneul::agent::run(argc, argv);
}
