#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "diagnose/diagnosis.h"

namespace lockscope {

/// "lockscope.diagnosis/1", as docs/diagnosis.schema.json describes it.
std::string diagnosis_json(const Diagnosis& diagnosis);

/// The parts that other documents share: "capture" and "processes".
nlohmann::json capture_json(const Diagnosis& diagnosis);
nlohmann::json processes_json(const Diagnosis& diagnosis);

/// {"count", "total_ns", "p50_ns", "p99_ns", "max_ns"}
nlohmann::json durations_json(const Durations& durations);
/// Those of a site, and by which tier they are known.
nlohmann::json hold_json(const Diagnosis& diagnosis, const Site& site);

/// A stack's frames, innermost first; empty for kNone.
nlohmann::json frames_json(const Diagnosis& diagnosis, Index stack);
nlohmann::json frames_json(const std::vector<Frame>& frames);

/// Why a stack is not whole; null if it is.
nlohmann::json incomplete_json(const Diagnosis& diagnosis, Index stack);

/// A document as text; names that are not UTF-8 come out with U+FFFD.
std::string to_text(const nlohmann::json& document);

}  // namespace lockscope
