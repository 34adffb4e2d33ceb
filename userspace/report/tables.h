#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "diagnose/diagnosis.h"

namespace lockscope {

/// By what the tables of locks and wait sites are ordered, most first.
enum class SortKey { Wait, Count, Max, Hold, Blame };

std::optional<SortKey> parse_sort_key(std::string_view name);

/// Tables of locks, wait sites, holders and waiter-waker pairs, as text.
std::string tables_text(const Diagnosis& diagnosis, SortKey key);

/// The same, whole, as JSON: "lockscope.report/1", docs/report.schema.json.
std::string tables_json(const Diagnosis& diagnosis, SortKey key);

}  // namespace lockscope
