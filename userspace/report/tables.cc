#include "report/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pthread_tier.h"
#include "report/diagnosis_json.h"
#include "report/diagnosis_text.h"
#include "text/format.h"

namespace lockscope {

using nlohmann::json;

namespace {

constexpr size_t kMaxRows = 20;   // of each table, as text
constexpr size_t kNameWidth = 44;

std::vector<Index> sorted_sites(const Diagnosis& diagnosis, SortKey key) {
  const auto& sites = diagnosis.view.sites;
  const auto value = [key](const Site& site) -> uint64_t {
    switch (key) {
      case SortKey::Wait: return site.wait_ns();
      case SortKey::Count: return site.wait.count + site.in_flight;
      case SortKey::Max: return site.max_wait_ns();
      case SortKey::Hold: return site.hold.total_ns;
      case SortKey::Blame: return site.blame_ns;
    }
    return 0;
  };
  std::vector<Index> order;
  for (size_t i = 0; i < sites.size(); i++) order.push_back(static_cast<Index>(i));
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return value(sites[a]) > value(sites[b]); });
  return order;
}

// Pads by what is seen, not by bytes.
std::string fit(std::string text, size_t width) {
  size_t columns = 0, at = 0;
  for (; at < text.size(); at++) {
    if ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) continue;
    if (columns == width) break;
    columns++;
  }
  if (at < text.size()) text = text.substr(0, at - 1) + "~";
  return text + std::string(width - columns, ' ');
}

std::string right(const std::string& text, size_t width) {
  size_t columns = 0;
  for (const char c : text) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return std::string(columns < width ? width - columns : 0, ' ') + text;
}

std::string time_cell(uint64_t ns) { return right(format_ns(static_cast<double>(ns)), 10); }

// Where a stack is, in few words: the program's own innermost function.
std::string stack_label(const Diagnosis& diagnosis, Index stack) {
  if (stack == kNone) return "(none seen: timeout, signal or before)";
  const auto& frames = diagnosis.capture.frames[stack];
  const Frame* frame = calling_frame(frames);
  if (frame == nullptr && !frames.empty()) frame = &frames.front();
  return frame == nullptr ? "(empty stack)" : printable(frame->function);
}

std::vector<const PairRow*> sorted_pairs(const Diagnosis& diagnosis) {
  std::vector<const PairRow*> pairs;
  for (const PairRow& pair : diagnosis.capture.capture.pairs) {
    if (pair.lock != kNone) pairs.push_back(&pair);
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const PairRow* a, const PairRow* b) {
    return a->total_ns > b->total_ns;
  });
  return pairs;
}

struct StackRow {
  Index site;
  StackShare share;
};

// Stacks of all sites in one list, most time first.
template <class Select>
std::vector<StackRow> sorted_stacks(const Diagnosis& diagnosis, Select select) {
  std::vector<StackRow> rows;
  for (size_t i = 0; i < diagnosis.view.sites.size(); i++) {
    for (const StackShare& share : select(diagnosis.view.sites[i])) {
      rows.push_back({static_cast<Index>(i), share});
    }
  }
  std::stable_sort(rows.begin(), rows.end(), [](const StackRow& a, const StackRow& b) {
    return a.share.ns > b.share.ns;
  });
  return rows;
}

void append_more(std::string& out, size_t rows) {
  if (rows > kMaxRows) out += fmt::format("  ... {} more\n", format_count(rows - kMaxRows));
}

void append_stack_table(std::string& out, const Diagnosis& diagnosis, const char* title,
                        const char* header, const std::vector<StackRow>& rows) {
  if (rows.empty()) return;
  out += fmt::format("\n{}\n  {} {:>10} {:>9}  at\n", title, fit(header, kNameWidth), "time",
                     "count");
  for (size_t i = 0; i < rows.size() && i < kMaxRows; i++) {
    const StackRow& row = rows[i];
    const Site& site = diagnosis.view.sites[row.site];
    out += fmt::format("  {} {} {:>9}  {}\n",
                       fit(stack_label(diagnosis, row.share.stack), kNameWidth),
                       time_cell(row.share.ns), format_count(row.share.count),
                       printable(site.name));
  }
  append_more(out, rows.size());
}

std::string object_label(const Diagnosis& diagnosis, Index object) {
  const auto& sites = diagnosis.view.sites;
  const auto site = std::find_if(sites.begin(), sites.end(),
                                 [object](const Site& it) { return it.object == object; });
  if (site != sites.end()) return printable(site->name);
  const PthreadObject& it = diagnosis.capture.capture.objects[object];
  return it.object.empty() ? fmt::format("{:#x}", it.address) : printable(it.object);
}

// Locks asked for while another was held, most often first.
std::vector<const OrderRow*> sorted_orders(const Diagnosis& diagnosis) {
  std::vector<const OrderRow*> orders;
  for (const OrderRow& order : diagnosis.capture.capture.orders) {
    if (order.held != kNone && order.wanted != kNone) orders.push_back(&order);
  }
  std::stable_sort(orders.begin(), orders.end(),
                   [](const OrderRow* a, const OrderRow* b) { return a->count > b->count; });
  return orders;
}

bool is_reversed(const Diagnosis& diagnosis, const OrderRow& order) {
  const auto& orders = diagnosis.capture.capture.orders;
  return std::any_of(orders.begin(), orders.end(), [&](const OrderRow& other) {
    return other.held == order.wanted && other.wanted == order.held;
  });
}

std::vector<Index> conditions(const Diagnosis& diagnosis) {
  std::vector<Index> found;
  const auto& objects = diagnosis.capture.capture.objects;
  for (size_t i = 0; i < objects.size(); i++) {
    if (objects[i].kind == LS_OBJECT_COND) found.push_back(static_cast<Index>(i));
  }
  std::stable_sort(found.begin(), found.end(), [&](Index a, Index b) {
    return objects[a].waits + objects[a].signals > objects[b].waits + objects[b].signals;
  });
  return found;
}

// What only the pthread tier sees.
void append_pthread_tables(std::string& out, const Diagnosis& diagnosis) {
  const auto orders = sorted_orders(diagnosis);
  if (!orders.empty()) {
    out += fmt::format("\nLOCK ORDER: asked for while another was held\n  {} {} {:>9}\n",
                       fit("held", kNameWidth), fit("asked for", kNameWidth), "count");
    for (size_t i = 0; i < orders.size() && i < kMaxRows; i++) {
      out += fmt::format("  {} {} {:>9}{}\n",
                         fit(object_label(diagnosis, orders[i]->held), kNameWidth),
                         fit(object_label(diagnosis, orders[i]->wanted), kNameWidth),
                         format_count(orders[i]->count),
                         is_reversed(diagnosis, *orders[i]) ? "  and the other way round" : "");
    }
    append_more(out, orders.size());
  }
  const auto found = conditions(diagnosis);
  if (found.empty()) return;
  out += fmt::format("\nCONDITIONS\n  {} {:>9} {:>9} {:>10} {:>13} {:>14}\n",
                     fit("name", kNameWidth), "waits", "signals", "broadcasts", "without mutex",
                     "nobody waiting");
  for (size_t i = 0; i < found.size() && i < kMaxRows; i++) {
    const PthreadObject& object = diagnosis.capture.capture.objects[found[i]];
    out += fmt::format("  {} {:>9} {:>9} {:>10} {:>13} {:>14}\n",
                       fit(object_label(diagnosis, found[i]), kNameWidth),
                       format_count(object.waits), format_count(object.signals),
                       format_count(object.broadcasts), format_count(object.unheld),
                       format_count(object.nobody));
  }
  append_more(out, found.size());
}

json object_json(const Diagnosis& diagnosis, Index object) {
  const Capture& capture = diagnosis.capture.capture;
  const PthreadObject& it = capture.objects[object];
  return {{"name", object_label(diagnosis, object)},
          {"address", fmt::format("{:#x}", it.address)},
          {"pid", it.process == kNone ? 0 : capture.processes[it.process].pid}};
}

json orders_json(const Diagnosis& diagnosis) {
  json rows = json::array();
  for (const OrderRow* order : sorted_orders(diagnosis)) {
    rows.push_back({{"held", object_json(diagnosis, order->held)},
                    {"wanted", object_json(diagnosis, order->wanted)},
                    {"count", order->count},
                    {"reversed", is_reversed(diagnosis, *order)},
                    {"tid", order->tid},
                    {"frames", frames_json(diagnosis, order->stack)}});
  }
  return rows;
}

json conditions_json(const Diagnosis& diagnosis) {
  json rows = json::array();
  for (const Index index : conditions(diagnosis)) {
    const PthreadObject& object = diagnosis.capture.capture.objects[index];
    json row = object_json(diagnosis, index);
    row["mutex"] = object.mutex == 0 ? json(nullptr) : json(fmt::format("{:#x}", object.mutex));
    row["waits"] = object.waits;
    row["signals"] = object.signals;
    row["broadcasts"] = object.broadcasts;
    row["without_mutex"] = object.unheld;
    row["nobody_waiting"] = object.nobody;
    rows.push_back(std::move(row));
  }
  return rows;
}

json addresses_json(const Capture& capture, Index stack) {
  json addresses = json::array();
  if (stack == kNone) return addresses;
  for (const uint64_t address : capture.stacks[stack].addresses) {
    addresses.push_back(fmt::format("{:#x}", address));
  }
  return addresses;
}

}  // namespace

std::optional<SortKey> parse_sort_key(std::string_view name) {
  if (name == "wait") return SortKey::Wait;
  if (name == "count") return SortKey::Count;
  if (name == "max") return SortKey::Max;
  if (name == "hold") return SortKey::Hold;
  if (name == "blame") return SortKey::Blame;
  return {};
}

std::string tables_text(const Diagnosis& diagnosis, SortKey key) {
  std::string out = headline(diagnosis);
  const auto order = sorted_sites(diagnosis, key);
  for (const bool locks : {true, false}) {
    size_t rows = 0;
    for (const Index index : order) {
      const Site& site = diagnosis.view.sites[index];
      if (site.is_lock != locks || site.wait.count + site.in_flight == 0) continue;
      if (rows++ == 0) {
        out += fmt::format("\n{}\n  {} {:<12} {:>10} {:>9} {:>10} {:>10} {:>10} {:>7}  process\n",
                           locks ? "LOCKS: waiting for what another thread holds"
                                 : "IDLE: waiting for work, time or a thread's end",
                           fit("name", kNameWidth), "kind", "wait", "count", "p99", "max",
                           "hold p50", "waiters");
      }
      if (rows > kMaxRows) continue;
      out += fmt::format(
          "  {} {:<12} {} {:>9} {} {} {} {:>7}  {}\n", fit(printable(site.name), kNameWidth),
          to_string(site.primitive), time_cell(site.wait_ns()),
          format_count(site.wait.count + site.in_flight),
          time_cell(site.wait.histogram.percentile(0.99, site.wait.max_ns)),
          time_cell(site.max_wait_ns()),
          site.hold.count == 0 ? right("-", 10)
                               : time_cell(site.hold.histogram.percentile(0.5, site.hold.max_ns)),
          site.waiters, process_label(diagnosis, site.process));
    }
    append_more(out, rows);
  }
  append_stack_table(out, diagnosis, "WAIT SITES: who waits", "function",
                     sorted_stacks(diagnosis, [](const Site& s) { return s.waiter_stacks; }));
  append_stack_table(
      out, diagnosis, "HOLDERS: who released it, with the waiting charged to them", "function",
      sorted_stacks(diagnosis, [](const Site& s) { return s.is_lock ? s.holder_stacks
                                                                    : std::vector<StackShare>{}; }));
  const auto pairs = sorted_pairs(diagnosis);
  if (!pairs.empty()) {
    out += fmt::format("\nPAIRS: which release ended which wait\n  {} {} {:>10} {:>9}\n",
                       fit("waiter", kNameWidth), fit("woken by", kNameWidth), "time", "count");
    for (size_t i = 0; i < pairs.size() && i < kMaxRows; i++) {
      out += fmt::format("  {} {} {} {:>9}\n",
                         fit(stack_label(diagnosis, pairs[i]->waiter), kNameWidth),
                         fit(stack_label(diagnosis, pairs[i]->waker), kNameWidth),
                         time_cell(pairs[i]->total_ns), format_count(pairs[i]->count));
    }
    append_more(out, pairs.size());
  }
  append_pthread_tables(out, diagnosis);
  return out + "\n" + quality_line(diagnosis);
}

std::string tables_json(const Diagnosis& diagnosis, SortKey key) {
  const Capture& capture = diagnosis.capture.capture;
  json document;
  document["schema"] = "lockscope.report/1";
  document["capture"] = capture_json(diagnosis);
  document["processes"] = processes_json(diagnosis);
  const auto pid_of = [&](Index process) {
    return process == kNone ? 0 : capture.processes[process].pid;
  };
  const auto pid_of_stack = [&](Index stack) {
    return stack == kNone ? 0 : pid_of(capture.stacks[stack].process);
  };
  std::vector<size_t> place(diagnosis.view.sites.size());
  document["locks"] = json::array();
  for (const Index index : sorted_sites(diagnosis, key)) {
    const Site& site = diagnosis.view.sites[index];
    place[index] = document["locks"].size();
    json wait = durations_json(site.wait);
    wait["in_flight"] = site.in_flight;
    wait["in_flight_ns"] = site.in_flight_ns;
    wait["timeouts"] = site.timeouts;
    document["locks"].push_back({{"kind", to_string(site.primitive)},
                                 {"name", site.name},
                                 {"address", fmt::format("{:#x}", site.address)},
                                 {"shared", site.shared},
                                 {"lock", site.is_lock},
                                 {"pid", pid_of(site.process)},
                                 {"wait_ns", site.wait_ns()},
                                 {"wait", std::move(wait)},
                                 {"hold", hold_json(diagnosis, site)},
                                 {"blame_ns", site.blame_ns},
                                 {"unreleased_ns", site.unreleased_ns},
                                 {"waiters", site.waiters},
                                 {"max_waiters", site.max_waiters},
                                 {"holders", site.holders}});
  }
  const auto stack_rows = [&](auto select) {
    json rows = json::array();
    for (const StackRow& row : sorted_stacks(diagnosis, select)) {
      rows.push_back({{"lock", place[row.site]},
                      {"pid", pid_of_stack(row.share.stack)},
                      {"ns", row.share.ns},
                      {"count", row.share.count},
                      {"complete", diagnosis.capture.whole(row.share.stack)},
                      {"incomplete_because", incomplete_json(diagnosis, row.share.stack)},
                      {"addresses", addresses_json(capture, row.share.stack)},
                      {"frames", frames_json(diagnosis, row.share.stack)}});
    }
    return rows;
  };
  document["wait_sites"] = stack_rows([](const Site& site) { return site.waiter_stacks; });
  document["holders"] = stack_rows([](const Site& site) { return site.holder_stacks; });
  document["pairs"] = json::array();
  for (const PairRow* pair : sorted_pairs(diagnosis)) {
    document["pairs"].push_back({{"lock", place[diagnosis.view.site_of_lock[pair->lock]]},
                                 {"waiter_pid", pid_of_stack(pair->waiter)},
                                 {"waker_pid", pid_of_stack(pair->waker)},
                                 {"ns", pair->total_ns},
                                 {"count", pair->count},
                                 {"waiter_frames", frames_json(diagnosis, pair->waiter)},
                                 {"waker_frames", frames_json(diagnosis, pair->waker)}});
  }
  document["lock_order"] = orders_json(diagnosis);
  document["conditions"] = conditions_json(diagnosis);
  return to_text(document);
}

}  // namespace lockscope
