// The looks of all pages: light and dark, screen and paper. Colours have a contrast of at least 4.5 to their ground as
// text and of 3 as shapes.
#include "core/budget/report_page.h"

namespace shoestring::page {

std::string_view style() {
  return R"(
:root{color-scheme:light dark;--ground:#f5f6f8;--card:#fff;--edge:#e3e6eb;--text:#14181f;--quiet:#5a6472;--grid:#e9ecf0;
--accent:#1f5fbf;--accent-soft:#d6e4f8;--spare:#8a6100;--spare-fill:#d9a93a;--lost:#b3362b;--lost-soft:#f3c5bf;
--good:#176b3a;--good-soft:#dcf2e4;--warn:#7a5300;--warn-soft:#fbeccb;--bad:#a12d23;--bad-soft:#fbdfdb;
--s1:#b3541e;--s2:#23784a;--s3:#7a3fa8;--s4:#0f7280;--s5:#8c2f5c}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--card:#161b22;--edge:#2a313b;--text:#e8ecf2;--quiet:#9ba7b6;
--grid:#252c36;--accent:#6ea8ff;--accent-soft:#1d3358;--spare:#e0b95c;--spare-fill:#b98a2e;--lost:#ff8d80;
--lost-soft:#5b2723;--good:#7ddba0;--good-soft:#143524;--warn:#f0c66b;--warn-soft:#3a2d10;--bad:#ff9a8e;--bad-soft:#471d19;
--s1:#f0965c;--s2:#6fd09a;--s3:#c79bf0;--s4:#5cc8d6;--s5:#f08fbd}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1040px;margin:0 auto;padding:28px 20px 48px;display:grid;gap:16px;grid-template-columns:repeat(2,minmax(0,1fr))}
header,.wide,.hero,footer{grid-column:1/-1}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 14px}
h1{font-size:26px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:14px;font-weight:650;margin:0 0 12px}
h3{font-size:13px;font-weight:600;color:var(--quiet);margin:18px 0 6px}
p{margin:6px 0}
.facts{flex-basis:100%;color:var(--quiet);font-size:13.5px}
.badge{font-size:13px;font-weight:600;border-radius:99px;padding:3px 11px;white-space:nowrap}
.good{background:var(--good-soft);color:var(--good)}.warn{background:var(--warn-soft);color:var(--warn)}
.bad{background:var(--bad-soft);color:var(--bad)}
.why{flex-basis:100%;margin:2px 0 0;overflow-wrap:anywhere}
.card,.hero,.wide{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:18px 20px;min-width:0}
.hero{display:grid;grid-template-columns:minmax(0,1.15fr) minmax(0,1fr);gap:18px 36px}
.label{color:var(--quiet);font-size:13px;font-weight:500}
.figure{font-size:44px;font-weight:650;line-height:1.1;letter-spacing:-.02em;font-variant-numeric:tabular-nums;margin-top:2px}
.figure small{font-size:17px;font-weight:500;letter-spacing:0;color:var(--quiet)}
.tiles{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:18px 24px;align-content:start}
.tile .value{font-size:22px;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tile .note,.note{color:var(--quiet);font-size:12.5px;line-height:1.45;overflow-wrap:anywhere}
svg{display:block;max-width:100%}
.bar{width:100%;height:22px;border-radius:5px;overflow:hidden;margin:12px 0 10px}
td .bar{height:9px;border-radius:2px;margin:0;min-width:90px}
.line-bar{height:34px}
.kept{fill:var(--accent)}.spare{fill:var(--spare-fill)}.lost{fill:url(#hatch)}.rest{fill:var(--grid)}
.hatch-ground{fill:var(--lost-soft)}.hatch-line{fill:var(--lost)}
.cut{stroke:var(--card);stroke-width:2;vector-effect:non-scaling-stroke;fill:none}
.patterns{position:absolute;width:0;height:0}
.chart{width:100%;height:auto;overflow:visible;font-family:inherit}
.tick,.unit{fill:var(--quiet);font-size:11px;font-variant-numeric:tabular-nums}
.grid{stroke:var(--grid);stroke-width:1}.axis{stroke:var(--edge);stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.area{fill:var(--accent-soft);stroke:none;opacity:.6}
.mark{stroke:var(--lost);stroke-width:1.5;stroke-dasharray:2 3;fill:none}
.s0{stroke:var(--accent)}.s1{stroke:var(--s1);stroke-dasharray:7 4}.s2{stroke:var(--s2);stroke-dasharray:2 4}
.s3{stroke:var(--s3);stroke-dasharray:9 3 2 3}.s4{stroke:var(--s4);stroke-dasharray:14 4}.s5{stroke:var(--s5);stroke-dasharray:4 2}
.dot{fill:var(--card);stroke-width:2;stroke-dasharray:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;padding:0;font-size:12.5px;color:var(--quiet)}
.legend li{display:flex;align-items:center;gap:7px}
.key{width:24px;height:8px;flex:none}.swatch{width:12px;height:12px;border-radius:3px;flex:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:6px 14px 6px 0;text-align:left;border-bottom:1px solid var(--grid);vertical-align:middle}
th:last-child,td:last-child{padding-right:0}
tr:last-child>*{border-bottom:0}
thead th{color:var(--quiet);font-weight:500;font-size:12.5px;border-bottom:1px solid var(--edge)}
tbody th{font-weight:500}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.sum>*{border-top:1px solid var(--edge);font-weight:650}
.said{overflow-wrap:anywhere}th .said,td .said,td code{overflow-wrap:break-word}.none{color:var(--quiet)}
details{margin-top:12px;font-size:13.5px}
summary{cursor:pointer;color:var(--quiet);font-size:12.5px;width:fit-content}
summary:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
details .scroll{max-height:320px;overflow:auto;margin-top:8px}
pre{font:12px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-x:auto;margin:8px 0 0;
background:var(--ground);border-radius:8px;padding:12px 14px}
code{font:12.5px ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
footer{color:var(--quiet);font-size:12.5px}
@media (max-width:720px){body{font-size:14.5px}main{grid-template-columns:minmax(0,1fr);padding:18px 12px 32px;gap:12px}
.hero{grid-template-columns:minmax(0,1fr)}.card,.hero,.wide{padding:15px 14px}.figure{font-size:38px}h1{font-size:22px}
.tile .value{font-size:19px}th,td{padding-right:10px}}
@media print{@page{size:A4;margin:11mm}:root{--ground:#fff;--card:#fff;--edge:#d4d8de;--text:#000;--quiet:#444;--grid:#e4e7eb;
--accent:#1f5fbf;--accent-soft:#d6e4f8;--spare-fill:#d9a93a;--lost:#b3362b;--lost-soft:#f3c5bf;--good:#176b3a;--good-soft:#dcf2e4;
--warn:#7a5300;--warn-soft:#fbeccb;--bad:#a12d23;--bad-soft:#fbdfdb;--s1:#b3541e;--s2:#23784a;--s3:#7a3fa8;--s4:#0f7280;--s5:#8c2f5c}
body{font-size:9.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0;gap:8px;
grid-template-columns:repeat(2,minmax(0,1fr))}.hero{grid-template-columns:minmax(0,1fr);gap:8px}
.tiles{grid-template-columns:repeat(4,minmax(0,1fr));gap:6px 14px}.tile .value{font-size:13pt}.tile .note{font-size:8pt}
.card,.hero,.wide{padding:9px 12px;border-radius:6px;break-inside:avoid}details,.screen{display:none}table{font-size:8.5pt}
th,td{padding-top:2.5px;padding-bottom:2.5px}.figure{font-size:26pt}h1{font-size:17pt}h2{margin-bottom:6px}
.long tbody tr:nth-child(n+9):not(:last-child){display:none}}
)";
}

}  // namespace shoestring::page
