#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <functional>
#include <iterator>
#include <limits>
#include <string_view>

#include "export/flame.h"
#include "export/flame_color.h"
#include "export/flame_tree.h"
#include "export/text.h"

namespace lockscope {
namespace {

constexpr std::string_view kStyle =
#include "export/flame_style.inc"
    ;
constexpr std::string_view kToolbar =
#include "export/flame_toolbar.inc"
    ;
constexpr std::string_view kScript =
#include "export/flame_script.inc"
    ;

// All lengths are px. Without the script the file keeps this layout; the script
// takes the first four from the document and lays out again for the window.
constexpr double kPad = 12;
constexpr double kRow = 18;
constexpr double kBox = 17;  // a box is a row less a gap
constexpr double kHead = 106;
constexpr double kMinWidth = 0.1;
constexpr double kWidth = 1200;
constexpr double kInner = kWidth - 2 * kPad;

constexpr double kColumn = 7.3;  // one letter of a 12 px monospace font, rounded up
constexpr double kLine = 18;
constexpr size_t kNoteColumns = 165;  // of a 13 px sans font in kInner, rounded down

// A browser lays this many boxes out in 0.2 to 0.5 s, measured with Chromium on
// two busy cores and no GPU. They make a file of about 4 MB.
constexpr size_t kMaxBoxes = 15000;
constexpr size_t kMaxLineBytes = 2000;

std::string escaped(std::string_view raw, size_t max_bytes = kMaxLineBytes) {
  std::string out;
  append_xml(out, clean_text(raw, max_bytes));
  return out;
}

std::string plural(uint64_t n, std::string_view noun) {
  return fmt::format("{} {}{}", human_count(n), noun, n == 1 ? "" : "s");
}

// The smallest value that is drawn. A callee is never wider than its caller, so
// what is left out is always whole subtrees.
uint64_t smallest_drawn(const FlameTree& tree) {
  const double narrow = static_cast<double>(tree.total_value) * kMinWidth / kInner;
  const auto smallest = std::max<uint64_t>(1, static_cast<uint64_t>(narrow));
  std::vector<uint64_t> values;
  for (const FlameBox& box : tree.boxes) {
    if (box.value >= smallest) values.push_back(box.value);
  }
  if (values.size() <= kMaxBoxes) return smallest;
  std::nth_element(values.begin(), values.begin() + kMaxBoxes, values.end(), std::greater<>());
  return values[kMaxBoxes] + 1;
}

// What smallest_drawn() leaves out, for the note about it.
struct LeftOut {
  uint64_t boxes = 0;
  uint64_t value = 0;  // of the outermost ones, so nothing counts twice

  std::string note(const FlameTree& tree, std::string_view unit, uint64_t smallest) const {
    return fmt::format(
        "{} left out as too small (each below {}, {} of the total): together {} of the total. "
        "The folded format keeps them.",
        plural(boxes, "frame"), human_value(smallest, unit),
        human_percent(smallest, tree.total_value), human_percent(value, tree.total_value));
  }
};

class SvgWriter {
 public:
  explicit SvgWriter(const FlameGraph& graph) : graph_(graph), tree_(merge_stacks(graph.stacks)) {}

  std::string render() {
    const bool empty = tree_.total_value == 0;
    const std::string frames = empty ? "" : write_frames();
    const double bottom = empty ? kHead + 40 : kHead + rows_ * kRow;
    const Foot foot = write_foot();

    std::string out = fmt::format(
        R"xml(<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" lang="en">
<title>{2}</title>
<style><![CDATA[{3}]]></style>
<rect class="page" id="page" width="{0}" height="100%"/>
)xml",
        kWidth, bottom + foot.height, escaped(graph_.title), kStyle);
    out += frames;
    if (empty) {
      out +=
          fmt::format(R"xml(<text class="empty" x="{}" y="{}">Nothing was recorded.{}</text>)xml"
                      "\n",
                      kPad, kHead + 20,
                      graph_.notes.empty() ? "" : " The notes below say what is known about why.");
    }
    out += fmt::format(R"xml(<g id="foot" data-y="{}" transform="translate(0 {})">{}</g>)xml"
                       "\n",
                       foot.notes_y, bottom, foot.text);
    out += write_head(empty);
    if (!empty) out += fmt::format("<script><![CDATA[{}]]></script>\n", kScript);
    return out + "</svg>\n";
  }

 private:
  struct Foot {
    std::string text;
    double notes_y;  // baseline of the first note, from the end of the graph
    double height;
  };

  std::string measured(uint64_t value, uint64_t count) const {
    std::string text = human_value(value, graph_.unit);
    if (graph_.unit == "count") {
      text = plural(value, "event");
    } else if (count != 0) {
      text += fmt::format(" in {} (average {})", plural(count, "event"),
                          human_value(value / count, graph_.unit));
    }
    return fmt::format("{} \u00b7 {} of the total", text, human_percent(value, tree_.total_value));
  }

  void write_box(std::string& out, std::string_view name, const std::string& color, uint32_t row,
                 const FlameBox& box) const {
    const double scale = kInner / static_cast<double>(tree_.total_value);
    const double x = kPad + static_cast<double>(box.start) * scale;
    const double width = static_cast<double>(box.value) * scale;
    const double y = kHead + (rows_ - 1 - row) * kRow;
    // The script relies on this shape: the name is the title's first line.
    fmt::format_to(std::back_inserter(out),
                   R"xml(<g class="f" data-d="{}" data-s="{}" data-v="{}"><title>)xml", row,
                   box.start, box.value);
    append_xml(out, name);
    out += '\n';
    append_xml(out, measured(box.value, box.count));
    fmt::format_to(
        std::back_inserter(out),
        R"xml(</title><rect x="{:.3f}" y="{}" width="{:.3f}" height="{}" rx="2" fill="{}"/>)xml", x,
        y, width, kBox, color);
    const auto columns = static_cast<size_t>(std::max(0.0, (width - 6) / kColumn));
    if (columns >= 3) {
      fmt::format_to(std::back_inserter(out), R"xml(<text x="{:.2f}" y="{}">)xml", x + 3, y + 12.5);
      append_xml(out, truncate_columns(name, columns));
      out += "</text>";
    }
    out += "</g>\n";
  }

  std::string write_frames() {
    const uint64_t smallest = smallest_drawn(tree_);
    LeftOut left_out;
    uint64_t end_of_left_out = 0;
    for (const FlameBox& box : tree_.boxes) {
      if (box.value >= smallest) {
        rows_ = std::max(rows_, box.depth + 2);
        continue;
      }
      ++left_out.boxes;
      if (box.start >= end_of_left_out) {
        left_out.value += box.value;
        end_of_left_out = box.start + box.value;
      }
    }
    if (left_out.boxes != 0) left_out_note_ = left_out.note(tree_, graph_.unit, smallest);

    std::string out = fmt::format(
        R"xml(<g id="frames" data-pad="{}" data-row="{}" data-head="{}" data-min="{}">)xml"
        "\n",
        kPad, kRow, kHead, kMinWidth);
    write_box(out, "all", "#e4e4e4", 0, {0, 0, 0, tree_.total_value, tree_.total_count});
    for (const FlameBox& box : tree_.boxes) {
      if (box.value < smallest) continue;
      const std::string& name = tree_.names[box.name];
      kinds_.set(static_cast<size_t>(frame_kind(name)));
      write_box(out, name, frame_color(graph_.palette, name), box.depth + 1, box);
    }
    return out + "</g>\n";
  }

  // After the frames, to cover them when it is kept in sight while scrolling.
  std::string write_head(bool empty) const {
    std::string out = fmt::format(
        R"xml(<g id="head"><rect class="page" width="{}" height="{}"/>)xml"
        R"xml(<text id="title" x="{}" y="30">{}</text><text id="subtitle" x="{}" y="50">{}</text>)xml",
        kWidth, kHead - 4, kPad, escaped(graph_.title), kPad, escaped(graph_.subtitle));
    if (!empty) {
      // The script shows the frame under the pointer in "name" and "info".
      out += fmt::format(
          R"xml(<line class="rule" x1="{0}" x2="{1}" y1="62.5" y2="62.5"/>)xml"
          R"xml(<text id="name" x="{0}" y="78">all</text><text id="info" x="{0}" y="94">{2}</text>)xml",
          kPad, kWidth - kPad, measured(tree_.total_value, tree_.total_count));
      out += kToolbar;
    }
    return out + "</g>\n";
  }

  Foot write_foot() const {
    Foot foot;
    double y = 24;
    if (kinds_.count() > 1) {
      double x = kPad;
      for (int i = 0; i < kFrameKinds; ++i) {
        if (!kinds_.test(static_cast<size_t>(i))) continue;
        const auto kind = static_cast<FrameKind>(i);
        const std::string_view label = frame_kind_label(kind);
        foot.text += fmt::format(
            R"xml(<rect x="{}" y="{}" width="14" height="14" rx="2" fill="{}"/><text x="{}" y="{}">{}</text>)xml",
            x, y - 11.5, kind_color(graph_.palette, kind), x + 20, y, label);
        x += 20 + static_cast<double>(label.size()) * 7.6 + 16;
      }
      y += 28;
    }
    std::vector<std::string> notes = graph_.notes;
    if (!left_out_note_.empty()) notes.push_back(left_out_note_);
    if (!notes.empty()) {
      foot.text +=
          fmt::format(R"xml(<text class="heading" x="{}" y="{}">Notes</text>)xml", kPad, y);
      y += kLine + 2;
    }
    foot.notes_y = y;
    for (const std::string& note : notes) {
      foot.text += R"xml(<text class="note">)xml";
      std::string rest = clean_text(note, kMaxLineBytes);
      while (!rest.empty()) {
        const size_t end = line_end(rest);
        foot.text += fmt::format(R"xml(<tspan x="{}" y="{}">)xml", kPad, y);
        append_xml(foot.text, rest.substr(0, end));
        foot.text += "</tspan>";
        rest.erase(0, end);
        y += kLine;
      }
      foot.text += "</text>";
    }
    foot.height = y + 4;
    return foot;
  }

  // Bytes of the first line of a note: up to a space, or to the limit within a
  // long word. The space stays, so that the script can join the lines again.
  static size_t line_end(const std::string& text) {
    if (text.size() <= kNoteColumns) return text.size();
    const size_t space = text.rfind(' ', kNoteColumns);
    if (space != std::string::npos && space > kNoteColumns / 2) return space + 1;
    size_t end = kNoteColumns;
    while (end > 1 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    return end;
  }

  const FlameGraph& graph_;
  const FlameTree tree_;
  uint32_t rows_ = 1;  // drawn, with the one for everything
  std::bitset<kFrameKinds> kinds_;
  std::string left_out_note_;
};

}  // namespace

std::string render_svg(const FlameGraph& graph) { return SvgWriter(graph).render(); }

}  // namespace lockscope
