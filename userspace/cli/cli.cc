#include "cli/cli.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "cli/commands.h"

namespace lockscope {
namespace {

constexpr const char* kTargetHelp =
    "TARGET is one of: -p PID (repeatable), --comm NAME, --cgroup PATH, -a, a saved\n"
    "capture FILE, or -- COMMAND ARGS to run. A command's output goes to stderr\n"
    "while the report goes to stdout.";

// Options that every command with a target has.
void add_target(CLI::App& app, Request& request) {
  app.add_option("-p,--pid", request.target.pids, "trace this process; may be given again")
      ->type_name("PID")
      ->take_all();
  app.add_option("--comm", request.target.comm, "trace processes of this name")
      ->type_name("NAME");
  app.add_option("--cgroup", request.target.cgroup, "trace a cgroup (v2) and those below it")
      ->type_name("PATH");
  app.add_flag("-a,--all", request.target.all, "trace the whole system");
  app.add_option("-d,--duration", request.seconds,
                 "seconds to record (default 10; with a command, until it ends)")
      ->type_name("SECONDS");
  app.add_option("--stack-rate", request.stack_rate,
                 "stacks a second and CPU above which they are taken for a sample, in\n"
                 "proportion to time; 0: all of them, always (default 2000)")
      ->type_name("N")
      ->check(CLI::Range(0u, 1000000u));
  app.add_option("--tiers", request.tiers,
                 "what to look with: futex (always there); pthread, every call of a process's\n"
                 "pthread functions, contended or not; holder, what threads do while they\n"
                 "hold a contended lock (default futex)")
      ->type_name("LIST")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"futex", "pthread", "holder"}));
  app.add_option("--budget", request.budget_percent,
                 "percent of the CPU time of the processes looked at that the pthread tier's\n"
                 "probes may cost; above it they are there for slices of the time, and holds are\n"
                 "estimated (default 5; 100: no limit). Without --tiers: adds that tier, in\n"
                 "processes in which threads wait for locks")
      ->type_name("PERCENT")
      ->check(CLI::Range(0.01, 100.0));
  app.footer(kTargetHelp);
}

void add_file(CLI::App& app, Request& request) {
  app.add_option("FILE", request.target.file, "a capture saved by lockscope record");
}

void add_output(CLI::App& app, Request& request) {
  app.add_option("-o,--output", request.output, "write to this file, not to stdout")
      ->type_name("FILE");
}

Status check_target(const Request& request) {
  const Target& target = request.target;
  const int given = !target.pids.empty() + !target.comm.empty() + !target.cgroup.empty() +
                    target.all + !target.command.empty() + !target.file.empty();
  if (given == 0) {
    return usage_error("no target: give -p PID, --comm, --cgroup, -a, a capture or -- COMMAND");
  }
  if (given > 1) return usage_error("more than one kind of target given");
  if (request.seconds && !(*request.seconds > 0 && *request.seconds <= 1e7)) {
    return usage_error("the duration must be a positive number of seconds");
  }
  if (request.seconds && !target.file.empty()) {
    return usage_error("a saved capture has its own duration: -d does not go with a file");
  }
  if (request.wants_tier("pthread") && (target.all || !target.cgroup.empty())) {
    return usage_error("the pthread tier is for chosen processes: give -p PID, --comm or -- COMMAND");
  }
  return {};
}

void set_up_logging(bool verbose) {
  auto logger = std::make_shared<spdlog::logger>(
      "lockscope", std::make_shared<spdlog::sinks::stderr_sink_st>());
  logger->set_pattern("lockscope: %v");
  logger->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

int report_error(const Error& error) {
  std::fprintf(stderr, "lockscope: %s\n", error.message.c_str());
  return static_cast<int>(error.kind);
}

}  // namespace

int run_cli(int argc, char** argv) {
  // What stands behind "--" is the command to run, not ours to parse.
  std::vector<std::string> arguments(argv + 1, argv + argc);
  Request request;
  const auto separator = std::find(arguments.begin(), arguments.end(), "--");
  if (separator != arguments.end()) {
    request.target.command.assign(separator + 1, arguments.end());
    arguments.erase(separator, arguments.end());
    if (request.target.command.empty()) return report_error(usage_error("no command after --"));
  }

  CLI::App app{"lockscope: which lock, who holds it, and why: contention in running processes",
               "lockscope"};
  app.require_subcommand(1);
  app.set_version_flag("--version", kVersion);
  bool verbose = false;
  app.add_flag("-v,--verbose", verbose, "say more on stderr");
  app.fallthrough();

  CLI::App* diagnose = app.add_subcommand("diagnose", "say in words what is wrong, and why");
  add_target(*diagnose, request);
  add_file(*diagnose, request);
  add_output(*diagnose, request);
  diagnose->add_option("--format", request.format, "text or json")->type_name("FORMAT");

  CLI::App* record = app.add_subcommand("record", "save a capture, to be read anywhere");
  add_target(*record, request);
  add_output(*record, request);

  CLI::App* report = app.add_subcommand("report", "tables of locks, wait sites, holders, pairs");
  add_target(*report, request);
  add_file(*report, request);
  add_output(*report, request);
  report->add_option("--format", request.format, "text or json")->type_name("FORMAT");
  report->add_option("--sort", request.sort, "wait, count, max, hold or blame")->type_name("KEY");

  CLI::App* flame = app.add_subcommand("flame", "flame graph of waiting, blame or holding");
  add_target(*flame, request);
  add_file(*flame, request);
  add_output(*flame, request);
  flame->add_option("--metric", request.metric, "wait, blame, hold, idle or critical-section")->type_name("METRIC");
  flame->add_option("--format", request.format, "svg (default) or folded")->type_name("FORMAT");

  CLI::App* threads =
      app.add_subcommand("threads", "where every thread is now, what it waits for, who holds it");
  threads->add_option("-p,--pid", request.target.pids, "of this process; may be given again")
      ->type_name("PID")
      ->take_all();
  add_output(*threads, request);
  threads->add_option("--format", request.format, "text or json")->type_name("FORMAT");
  threads->footer("The process is not stopped. Deadlocks come first, then threads that are in the\n"
                  "same place, together.");

  CLI::App* doctor =
      app.add_subcommand("doctor", "what this kernel and these privileges allow");
  std::string probes_file;
  doctor->add_option("--probes", probes_file, "show where uprobes go in a libc or static program")
      ->type_name("FILE");
  doctor->add_option("--format", request.format, "of --probes: text or json")->type_name("FORMAT");

  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return 0;
  } catch (const CLI::CallForVersion&) {
    std::cout << kVersion << "\n";
    return 0;
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    for (char& c : message) {
      if (c == '\n') c = ' ';
    }
    return report_error(usage_error(message + " (try lockscope --help)"));
  }
  set_up_logging(verbose);

  if (doctor->parsed() && doctor->count("--probes") > 0) {
    return run_doctor_probes(probes_file, request.format);
  }
  if (doctor->parsed()) return run_doctor();
  if (threads->parsed() && (request.target.pids.empty() || !request.target.command.empty())) {
    return report_error(usage_error("threads looks at running processes: give -p PID"));
  }
  if (Status target = check_target(request); !target.ok()) return report_error(target.error());
  Status done;
  if (diagnose->parsed()) done = run_diagnose(request);
  if (record->parsed()) done = run_record(request);
  if (report->parsed()) done = run_report(request);
  if (flame->parsed()) done = run_flame(request);
  if (threads->parsed()) done = run_threads(request);
  return done.ok() ? 0 : report_error(done.error());
}

}  // namespace lockscope
