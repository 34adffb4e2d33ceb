#include "report/threads_json.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "report/diagnosis_json.h"

namespace lockscope {

using nlohmann::json;

namespace {

json tid_json(const ThreadView& view, Index thread) {
  return thread == kNone ? json(nullptr) : json(view.census.threads[thread].tid);
}

json wait_json(const ThreadView& view, Index thread) {
  const ThreadWait& wait = view.waits[thread];
  if (!wait.known) return nullptr;
  return {{"kind", to_string(wait.primitive)},
          {"address", fmt::format("{:#x}", wait.address)},
          {"name", wait.name},
          {"lock", wait.is_lock},
          {"shared", wait.shared},
          {"timed", wait.timed},
          {"holder", tid_json(view, wait.holder)},
          {"lost_holder", wait.lost_holder == 0 ? json(nullptr) : json(wait.lost_holder)}};
}

json thread_json(const ThreadView& view, Index index) {
  const CensusThread& thread = view.census.threads[index];
  const char* why = view.why_incomplete(index);
  json call = nullptr;
  if (thread.call >= 0) call = {{"number", thread.call}, {"name", thread.call_name}};
  return {{"tid", thread.tid},
          {"inner_tid", thread.inner_tid},
          {"comm", thread.comm},
          {"state", to_string(thread.state)},
          {"call", std::move(call)},
          {"asleep_ns", thread.asleep_ns == 0 ? json(nullptr) : json(thread.asleep_ns)},
          {"waits_for", wait_json(view, index)},
          {"stack", thread.stack == kNone ? json(nullptr) : json(thread.stack)},
          {"complete", why == nullptr},
          {"incomplete_because", why ? json(why) : json(nullptr)}};
}

json processes_json(const ThreadView& view) {
  json all = json::array();
  for (const Process& process : view.census.named.capture.processes) {
    all.push_back({{"pid", process.pid},
                   {"comm", process.comm},
                   {"exe", process.exe},
                   {"language", process.language},
                   {"threads", json::array()}});
  }
  for (Index i = 0; i < view.census.threads.size(); i++) {
    all[view.census.threads[i].process]["threads"].push_back(thread_json(view, i));
  }
  return all;
}

json stacks_json(const ThreadView& view) {
  const SymbolizedCapture& named = view.census.named;
  json all = json::array();
  for (size_t i = 0; i < named.capture.stacks.size(); i++) {
    json addresses = json::array();
    for (const uint64_t address : named.capture.stacks[i].addresses) {
      addresses.push_back(fmt::format("{:#x}", address));
    }
    all.push_back({{"addresses", std::move(addresses)}, {"frames", frames_json(named.frames[i])}});
  }
  return all;
}

json cycles_json(const ThreadView& view) {
  json all = json::array();
  for (const WaitCycle& cycle : view.cycles) {
    json threads = json::array(), behind = json::array();
    for (const Index thread : cycle.threads) threads.push_back(tid_json(view, thread));
    for (const Index thread : cycle.behind) behind.push_back(tid_json(view, thread));
    all.push_back({{"threads", std::move(threads)}, {"behind", std::move(behind)}});
  }
  return all;
}

}  // namespace

const char* to_string(ThreadState state) {
  constexpr std::array<const char*, 7> kNames = {"running", "runnable", "sleeping", "disk sleep",
                                                 "stopped", "ended",    "other"};
  return kNames[static_cast<size_t>(state)];
}

std::string threads_json(const ThreadView& view) {
  const Capture& capture = view.census.named.capture;
  json document;
  document["schema"] = "lockscope.threads/1";
  document["census"] = {{"host", capture.host},
                        {"kernel", capture.kernel},
                        {"target", capture.target},
                        {"start_unix_ns", capture.start_unix_ns},
                        {"duration_ns", capture.duration_ns},
                        {"looks", view.census.looks},
                        {"quality",
                         {{"lost", capture.quality.lost},
                          {"complete_stacks", view.whole_stacks},
                          {"incomplete_stacks", view.incomplete_stacks}}}};
  document["cycles"] = cycles_json(view);
  document["processes"] = processes_json(view);
  document["stacks"] = stacks_json(view);
  return to_text(document);
}

}  // namespace lockscope
