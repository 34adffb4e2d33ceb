#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace lockscope {

/// The vdso as a file, from our own copy: the kernel maps the same into all
/// 64-bit processes.
Result<UniqueFd> open_vdso();

}  // namespace lockscope
