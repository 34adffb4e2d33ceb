#pragma once

#include <string>

#include "diagnose/diagnosis.h"

namespace lockscope {

/// The diagnosis in words, for a terminal of any width.
std::string diagnosis_text(const Diagnosis& diagnosis);

/// "pid 42, 10.0 s, futex tier, kernel 6.1.0" and what is to be known about the
/// data: one line each, shown with every report.
std::string headline(const Diagnosis& diagnosis);
std::string quality_line(const Diagnosis& diagnosis);

/// "name[pid]".
std::string process_label(const Diagnosis& diagnosis, Index process);

/// A frame in one line: "function file:line [module]".
std::string frame_line(const Frame& frame);

}  // namespace lockscope
