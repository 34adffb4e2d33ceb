#include "cli/commands.h"

#include <fcntl.h>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "capture/capture_file.h"
#include "diagnose/diagnosis.h"
#include "diagnose/thread_view.h"
#include "export/flame.h"
#include "parse/sandboxed_parser.h"
#include "probe/doctor.h"
#include "record/census.h"
#include "record/recorder.h"
#include "report/diagnosis_json.h"
#include "report/diagnosis_text.h"
#include "report/flame_view.h"
#include "report/probe_table.h"
#include "report/tables.h"
#include "report/threads_json.h"
#include "report/threads_text.h"
#include "symbolize/debuginfod.h"
#include "symbolize/symbolize_capture.h"
#include "symbolize/symbolize_census.h"

namespace lockscope {
namespace {

// A line on stderr that keeps up with the recording, if somebody looks.
void show_progress(double seconds) {
  std::fprintf(stderr, "\rlockscope: recording, %.0f s (Ctrl-C ends it and reports) ", seconds);
  std::fflush(stderr);
}

// An output that can't be written is better known before ten seconds of
// recording than after.
Status check_writable(const std::string& path) {
  if (path == "-") return {};
  if (path.empty()) return usage_error("-o needs the name of a file");
  if (struct stat info {}; ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return failed("cannot write " + path + ": it is a directory");
  }
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (::access(path.c_str(), F_OK) == 0 ? ::access(path.c_str(), W_OK) != 0
                                        : ::access(directory.c_str(), W_OK) != 0) {
    return failed("cannot write " + path + ": " + std::strerror(errno));
  }
  return {};
}

Result<SymbolizedCapture> obtain(const Request& request) {
  if (!request.target.file.empty()) return load_capture(request.target.file);
  if (Status writable = check_writable(request.output); !writable.ok()) return writable.error();
  RecordOptions options;
  options.target = request.target;
  options.seconds = request.seconds;
  options.stack_rate = request.stack_rate;
  // A budget asks for what can be had within it: where it is worth that.
  if (request.wants_tier("pthread")) {
    options.pthread_tier = PthreadScope::Targets;
  } else if (request.tiers.empty() && request.budget_percent) {
    options.pthread_tier = PthreadScope::Pointed;
  }
  if (request.budget_percent) options.budget_percent = *request.budget_percent;
  options.holder_tier = request.wants_tier("holder");
  options.command_stdout_to_stderr = request.output == "-";
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  if (terminal) options.progress = show_progress;
  SandboxedParser parser;
  Symbolizer symbolizer(
      parser, {.fetch_debug_file = debuginfod_client_from_environment(), .lines = true});
  auto capture = record(options, parser, symbolizer);
  if (terminal) std::fputs("\r\033[K", stderr);
  if (!capture) return capture.error();
  SymbolizedCapture symbolized = symbolize(std::move(*capture), symbolizer);
  symbolized.capture.quality.lost.insert(parser.failures().begin(), parser.failures().end());
  return symbolized;
}

Error bad_choice(const char* option, const std::string& value, const char* choices) {
  return usage_error(fmt::format("{} {}: must be {}", option, value, choices));
}

}  // namespace

Status run_diagnose(const Request& request) {
  const std::string format = request.format.empty() ? "text" : request.format;
  if (format != "text" && format != "json") return bad_choice("--format", format, "text or json");
  auto capture = obtain(request);
  if (!capture) return capture.error();
  const Diagnosis diagnosis = diagnose(std::move(*capture));
  return write_output(request.output, format == "json" ? diagnosis_json(diagnosis)
                                                       : diagnosis_text(diagnosis));
}

Status run_record(const Request& request) {
  if (request.output == "-") return usage_error("record needs -o FILE");
  auto capture = obtain(request);
  if (!capture) return capture.error();
  if (Status saved = save_capture(*capture, request.output); !saved.ok()) return saved;
  std::fprintf(stderr, "lockscope: %.1f s recorded to %s\n",
               static_cast<double>(capture->capture.duration_ns) * 1e-9, request.output.c_str());
  return {};
}

Status run_report(const Request& request) {
  const std::string format = request.format.empty() ? "text" : request.format;
  if (format != "text" && format != "json") return bad_choice("--format", format, "text or json");
  const auto key = parse_sort_key(request.sort);
  if (!key) return bad_choice("--sort", request.sort, "wait, count, max, hold or blame");
  auto capture = obtain(request);
  if (!capture) return capture.error();
  const Diagnosis diagnosis = diagnose(std::move(*capture));
  return write_output(request.output, format == "json" ? tables_json(diagnosis, *key)
                                                       : tables_text(diagnosis, *key));
}

Status run_flame(const Request& request) {
  const std::string format = request.format.empty() ? "svg" : request.format;
  if (format != "svg" && format != "folded") return bad_choice("--format", format, "svg or folded");
  const auto metric = parse_flame_metric(request.metric);
  if (!metric) return bad_choice("--metric", request.metric, "wait, blame, hold, idle or critical-section");
  Request with_holders = request;
  if (*metric == FlameMetric::CriticalSection && !request.wants_tier("holder")) {
    with_holders.tiers.push_back("holder");
  }
  auto capture = obtain(with_holders);
  if (!capture) return capture.error();
  const auto& tiers = capture->capture.tiers;
  if (*metric == FlameMetric::CriticalSection &&
      std::find(tiers.begin(), tiers.end(), "holder") == tiers.end()) {
    return failed("this capture does not have what holders did: record it with --tiers futex,holder");
  }
  const FlameGraph graph = flame_view(diagnose(std::move(*capture)), *metric);
  return write_output(request.output,
                      format == "svg" ? render_svg(graph) : render_folded(graph));
}

Status run_threads(const Request& request) {
  const std::string format = request.format.empty() ? "text" : request.format;
  if (format != "text" && format != "json") return bad_choice("--format", format, "text or json");
  if (Status writable = check_writable(request.output); !writable.ok()) return writable;
  SandboxedParser parser;
  Symbolizer symbolizer(
      parser, {.fetch_debug_file = debuginfod_client_from_environment(), .lines = true});
  auto census = take_census(request.target.pids, parser, symbolizer);
  if (!census) return census.error();
  SymbolizedCensus symbolized = symbolize(std::move(*census), symbolizer);
  symbolized.named.capture.quality.lost = parser.failures();
  const ThreadView view = view_threads(std::move(symbolized));
  return write_output(request.output,
                      format == "json" ? threads_json(view) : threads_text(view));
}

int run_doctor() {
  bool can_record = true;
  for (const Check& check : examine_system()) {
    const char* state = check.state == Check::State::Ok         ? "ok"
                        : check.state == Check::State::Degraded ? "less"
                                                                : "NO";
    can_record = can_record && check.state != Check::State::Missing;
    fmt::print("{:<4} {:<24} {}\n", state, check.what, check.detail);
  }
  return can_record ? 0 : static_cast<int>(Error::Kind::Unsupported);
}

int run_doctor_probes(const std::string& path, const std::string& format) {
  const auto fail = [](const Error& error) {
    fmt::print(stderr, "lockscope: {}\n", error.message);
    return static_cast<int>(error.kind);
  };
  if (!format.empty() && format != "text" && format != "json") {
    return fail(usage_error("--format of doctor --probes is text or json"));
  }
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail(failed("cannot read " + path + ": " + std::strerror(errno)));
  SandboxedParser parser;
  const auto plan = parser.probe_plan(file.get());
  if (!plan) return fail(failed(path + ": " + plan.error().message));
  fmt::print("{}", format == "json" ? probe_table_json(*plan) : probe_table_text(*plan));
  return 0;
}

}  // namespace lockscope
