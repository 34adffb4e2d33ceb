#include "symbolize/go_lines.h"

#include <utility>

#include "symbolize/demangle.h"
#include "symbolize/go_pclntab.h"

namespace lockscope {
namespace {

constexpr size_t kMaxInlined = 64;

class GoLines : public LineTable {
 public:
  explicit GoLines(GoPclntab table) : table_(std::move(table)) {}

  std::vector<Frame> find(uint64_t address) override {
    const auto function = table_.find(address);
    if (!function) return {};
    std::vector<Frame> frames;
    while (true) {
      Frame& frame = frames.emplace_back(line_at(*function, address));
      std::optional<GoInlinedCall> call;
      if (frames.size() <= kMaxInlined) {
        const auto index = table_.value_at(*function, function->inlined, address);
        if (index) call = table_.inlined_call(*function, *index);
      }
      frame.function = sanitize(table_.name(call ? call->name : function->name));
      if (!call) return frames;
      frame.inlined = true;
      address = call->call_site;
    }
  }

 private:
  Frame line_at(const GoFunction& function, uint64_t address) const {
    Frame frame;
    const auto file = table_.value_at(function, function.files, address);
    const auto line = table_.value_at(function, function.lines, address);
    if (!file || !line || *line <= 0) return frame;
    frame.file = sanitize(table_.source_file(function, *file));
    if (!frame.file.empty()) frame.line = static_cast<uint32_t>(*line);
    return frame;
  }

  GoPclntab table_;
};

}  // namespace

std::unique_ptr<LineTable> open_go_lines(const ElfFile& file) {
  auto own = file.duplicate();
  if (!own) return nullptr;
  auto table = GoPclntab::load(std::move(*own));
  if (!table) return nullptr;
  return std::make_unique<GoLines>(std::move(*table));
}

}  // namespace lockscope
