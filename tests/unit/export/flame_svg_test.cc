#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "export/flame.h"

namespace lockscope {
namespace {

struct Box {
  std::string title;  // still escaped
  int depth;
  double x;
  double y;
  double width;

  std::string name() const { return title.substr(0, title.find('\n')); }
};

std::vector<Box> boxes_of(const std::string& svg) {
  static const std::regex kBox(
      R"re(<g class="f" data-d="(\d+)" data-s="\d+" data-v="\d+"><title>([^<]*)</title><rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)")re");
  std::vector<Box> boxes;
  for (std::sregex_iterator it(svg.begin(), svg.end(), kBox), end; it != end; ++it) {
    boxes.push_back({(*it)[2], std::stoi((*it)[1]), std::stod((*it)[3]), std::stod((*it)[4]),
                     std::stod((*it)[5])});
  }
  return boxes;
}

const Box& find(const std::vector<Box>& boxes, const std::string& name) {
  for (const Box& box : boxes) {
    if (box.name() == name) return box;
  }
  ADD_FAILURE() << "no frame " << name;
  static const Box kNone{};
  return kNone;
}

// What makes XML not well-formed, as far as this writer could get it wrong:
// unbalanced tags, unknown entities, stray '<', control characters.
std::string xml_fault(const std::string& xml) {
  static const std::regex kTag(R"re(^<(/?)([A-Za-z]+)((?:\s+[a-zA-Z0-9-]+="[^"<]*")*)\s*(/?)>)re");
  static const std::regex kEntity(R"re(^&(amp|lt|gt|quot|#39);)re");
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size();) {
    if (xml.compare(i, 5, "<?xml") == 0) {
      i = xml.find("?>", i) + 2;
    } else if (xml.compare(i, 9, "<![CDATA[") == 0) {
      const size_t end = xml.find("]]>", i);
      if (end == std::string::npos) return "CDATA not closed";
      i = end + 3;
    } else if (xml[i] == '<') {
      std::smatch tag;
      const std::string text = xml.substr(i, 8192);
      if (!std::regex_search(text, tag, kTag)) return "bad tag: " + text.substr(0, 60);
      if (tag[1].length() != 0) {
        if (open.empty() || open.back() != tag[2]) return "unbalanced " + tag[2].str();
        open.pop_back();
      } else if (tag[4].length() == 0) {
        open.push_back(tag[2]);
      }
      i += static_cast<size_t>(tag[0].length());
    } else if (xml[i] == '&') {
      if (!std::regex_search(xml.substr(i, 8), kEntity)) return "bad entity";
      ++i;
    } else if (xml.compare(i, 3, "]]>") == 0) {
      return "]]> in text";
    } else if (static_cast<unsigned char>(xml[i]) < 0x20 && xml[i] != '\n') {
      return "control character";
    } else {
      ++i;
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

FlameGraph small_graph() {
  FlameGraph graph;
  graph.title = "Lock wait";
  graph.subtitle = "10 s";
  graph.unit = "ns";
  graph.stacks = {{{"main", "a", "lock"}, 60'000'000, 6},
                  {{"main", "b"}, 25'000'000, 1},
                  {{"main", "a"}, 10'000'000, 1},
                  {{"main", "a", "lock"}, 5'000'000, 4}};
  return graph;
}

FlameGraph hostile_graph() {
  FlameGraph graph;
  graph.title = "<b>\"t\" & 'x' ]]>\x01";
  graph.subtitle = "</text></svg><script>alert(1)</script>";
  graph.unit = "ns";
  graph.notes = {"]]><script>alert(2)</script>", std::string("nul\0l\xff", 6),
                 std::string(1000, '<')};
  for (const char* name :
       {"<script>alert(1)</script>", "]]>", "\" onload=\"alert(1)", "' x='", "a;b", "two\nlines",
        "bad\xff\xc0\x80\xed\xa0\x80", "\x1b[31m", "&amp;&#0;&bogus", "</title></g>",
        "\xEF\xBF\xBF", "\xE2\x80\xAEreversed", "--><!--", ""}) {
    graph.stacks.push_back({{"main", name}, 1000, 1});
  }
  return graph;
}

FlameGraph deep_graph() {
  FlameGraph graph;
  graph.unit = "ns";
  for (int leaf = 0; leaf < 3; ++leaf) {
    FlameStack stack{{}, 1000, 1};
    for (int i = 0; i < 126; ++i) stack.frames.push_back("f" + std::to_string(i));
    stack.frames.push_back("leaf" + std::to_string(leaf));
    graph.stacks.push_back(stack);
  }
  return graph;
}

TEST(FlameSvg, WidthsAreProportionalToValues) {
  const auto boxes = boxes_of(render_svg(small_graph()));
  const double all = find(boxes, "all").width;
  EXPECT_NEAR(find(boxes, "main").width, all, 0.01);
  EXPECT_NEAR(find(boxes, "a").width, all * 0.75, 0.01);
  EXPECT_NEAR(find(boxes, "lock").width, all * 0.65, 0.01);
  EXPECT_NEAR(find(boxes, "b").width, all * 0.25, 0.01);
}

TEST(FlameSvg, CalleesAreSideBySideWithinTheirCaller) {
  const auto boxes = boxes_of(render_svg(small_graph()));
  const Box& main = find(boxes, "main");
  const Box& a = find(boxes, "a");
  const Box& b = find(boxes, "b");
  EXPECT_NEAR(a.x, main.x, 0.01);
  EXPECT_NEAR(b.x, a.x + a.width, 0.01);
  EXPECT_NEAR(b.x + b.width, main.x + main.width, 0.01);
  EXPECT_EQ(a.y, b.y);
  EXPECT_GT(main.y, a.y) << "callees stand on their callers";
}

TEST(FlameSvg, EqualFramesWithEqualCallersAreOneBox) {
  const auto boxes = boxes_of(render_svg(small_graph()));
  EXPECT_EQ(boxes.size(), 5u);  // all, main, a, lock, b
}

TEST(FlameSvg, RecursionIsNotMerged) {
  FlameGraph graph;
  graph.unit = "count";
  graph.stacks = {{{"f", "f", "f"}, 3, 3}};
  EXPECT_EQ(boxes_of(render_svg(graph)).size(), 4u);
}

TEST(FlameSvg, TitleTellsTimeShareAndEvents) {
  const auto boxes = boxes_of(render_svg(small_graph()));
  EXPECT_EQ(find(boxes, "lock").title,
            "lock\n65.0 ms in 10 events (average 6.50 ms) \u00b7 65.00% of the total");
}

TEST(FlameSvg, CountsAreEvents) {
  FlameGraph graph;
  graph.unit = "count";
  graph.stacks = {{{"a"}, 1234, 1234}, {{"b"}, 1, 1}};
  const auto boxes = boxes_of(render_svg(graph));
  EXPECT_EQ(find(boxes, "a").title, "a\n1,234 events \u00b7 99.92% of the total");
  EXPECT_EQ(find(boxes, "b").title, "b\n1 event \u00b7 0.08% of the total");
}

TEST(FlameSvg, HostileTextIsEscapedEverywhere) {
  const std::string svg = render_svg(hostile_graph());
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_EQ(svg.find("<script>alert"), std::string::npos);
  EXPECT_EQ(svg.find("onload=\""), std::string::npos);
  EXPECT_NE(svg.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
  EXPECT_NE(svg.find("two lines\n"), std::string::npos);
  EXPECT_NE(svg.find("bad\uFFFD\uFFFD\uFFFD"), std::string::npos);
  EXPECT_EQ(svg.find('\xff'), std::string::npos);
  EXPECT_EQ(svg.find('\x1b'), std::string::npos);
  EXPECT_EQ(svg.find("\xEF\xBF\xBF"), std::string::npos);
  EXPECT_EQ(svg.find("\xE2\x80\xAE"), std::string::npos);
}

TEST(FlameSvg, ScriptAndStyleAreTheSameForEveryInput) {
  const auto code = [](const std::string& svg) {
    std::string all;
    for (size_t at = 0; (at = svg.find("<![CDATA[", at)) != std::string::npos; ++at) {
      all += svg.substr(at, svg.find("]]>", at) - at);
    }
    return all;
  };
  const std::string expected = code(render_svg(small_graph()));
  EXPECT_GT(expected.size(), 1000u);
  EXPECT_EQ(code(render_svg(hostile_graph())), expected);
}

TEST(FlameSvg, NeedsNothingFromOutside) {
  std::string svg = render_svg(small_graph());
  for (const char* name : {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}) {
    for (size_t at; (at = svg.find(name)) != std::string::npos;) {
      svg.erase(at, std::string(name).size());
    }
  }
  for (const char* link : {"://", "href", "@import", "url(", "src="}) {
    EXPECT_EQ(svg.find(link), std::string::npos) << link;
  }
}

TEST(FlameSvg, DeepStacksKeepEveryFrame) {
  const std::string svg = render_svg(deep_graph());
  const auto boxes = boxes_of(svg);
  EXPECT_EQ(boxes.size(), 1u + 126 + 3);
  EXPECT_EQ(find(boxes, "leaf2").depth, 127);
  EXPECT_EQ(xml_fault(svg), "");
  std::map<double, int> rows;
  for (const Box& box : boxes) ++rows[box.y];
  EXPECT_EQ(rows.size(), 128u);
}

TEST(FlameSvg, NarrowFramesAreLeftOutAndNoted) {
  FlameGraph graph;
  graph.unit = "ns";
  graph.stacks = {
      {{"wide"}, 999'000'000, 1}, {{"thin", "thinner"}, 60'000, 1}, {{"thin2"}, 30'000, 1}};
  const std::string svg = render_svg(graph);
  EXPECT_EQ(boxes_of(svg).size(), 2u);
  EXPECT_NE(svg.find("3 frames left out as too small (each below 85.0 µs, 0.01% of the total): "
                     "together 0.01% of the total."),
            std::string::npos);
  EXPECT_EQ(render_svg(small_graph()).find("left out"), std::string::npos);
}

TEST(FlameSvg, FramesAreBounded) {
  FlameGraph graph;
  graph.unit = "ns";
  for (int i = 0; i < 400; ++i) {
    FlameStack stack{{}, 1000, 1};
    for (int d = 0; d < 100; ++d) stack.frames.push_back(std::to_string(i * 100 + d));
    stack.value += static_cast<uint64_t>(i);
    graph.stacks.push_back(stack);
  }
  const std::string svg = render_svg(graph);
  const size_t drawn = boxes_of(svg).size();
  EXPECT_LE(drawn, 15001u);
  EXPECT_GT(drawn, 10000u);
  EXPECT_NE(svg.find("left out as too small"), std::string::npos);
}

TEST(FlameSvg, EmptyInputSaysSoAndWhy) {
  FlameGraph graph;
  graph.title = "Lock wait";
  graph.unit = "ns";
  graph.notes = {"No thread waited for a lock."};
  const std::string svg = render_svg(graph);
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_NE(svg.find("Nothing was recorded."), std::string::npos);
  EXPECT_NE(svg.find("No thread waited for a lock."), std::string::npos);
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  graph.stacks = {{{"a"}, 0, 3}};
  EXPECT_EQ(render_svg(graph), svg) << "stacks without value are nothing";
}

TEST(FlameSvg, LongNotesAreWrappedWithoutLoss) {
  FlameGraph graph = small_graph();
  std::string note;
  for (int i = 0; i < 100; ++i) note += "word" + std::to_string(i) + ' ';
  graph.notes = {note};
  std::string svg = render_svg(graph);
  std::string text = svg.substr(svg.find("<text class=\"note\">"));
  text = text.substr(0, text.find("</text>"));
  text = std::regex_replace(text, std::regex("<[^>]*>"), "");
  EXPECT_EQ(text, note);
}

TEST(FlameSvg, SameInputSameFile) {
  FlameGraph graph = small_graph();
  const std::string svg = render_svg(graph);
  std::swap(graph.stacks.front(), graph.stacks.back());
  EXPECT_EQ(render_svg(graph), svg);
}

TEST(FlameSvg, PalettesDiffer) {
  FlameGraph graph = small_graph();
  const std::string wait = render_svg(graph);
  graph.palette = FlamePalette::Blame;
  EXPECT_NE(render_svg(graph), wait);
}

// The check above is ours; this one is not.
TEST(FlameSvg, XmllintAcceptsIt) {
  if (std::system("command -v xmllint >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "xmllint (libxml2-utils) is not installed";
  }
  for (const FlameGraph& graph : {small_graph(), hostile_graph(), deep_graph(), FlameGraph{}}) {
    FILE* xmllint = popen("xmllint --noout --nonet -", "w");
    ASSERT_NE(xmllint, nullptr);
    const std::string svg = render_svg(graph);
    fwrite(svg.data(), 1, svg.size(), xmllint);
    EXPECT_EQ(pclose(xmllint), 0);
  }
}

}  // namespace
}  // namespace lockscope
