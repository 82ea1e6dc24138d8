"""What pages share: their head, which lets nothing be fetched or run, and their style, for light, dark, paper and telephone.

Colours after Okabe and Ito, for the colour-blind.
"""

HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
"""

STYLE = """\
:root {
  --ink: #1c2126; --soft: #59636e; --paper: #ffffff; --card: #f5f7f9; --rule: #d5dbe1; --grid: #e4e8ec;
  --accent: #0072b2; --warn: #a33c00; --warn-paper: #fdf1e7; --heat: #56b4e9;
  --c0: #0072b2; --c1: #c7500a; --c2: #00805f; --c3: #a8488a; --c4: #8f6400; --c5: #4a5fc1;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #a3aebb; --paper: #14181c; --card: #1d2329; --rule: #3a444e; --grid: #2a323a;
    --accent: #6cbcf0; --warn: #ffb27a; --warn-paper: #33241a; --heat: #2f7fb5;
    --c0: #56b4e9; --c1: #f08a4b; --c2: #2fc79b; --c3: #e29bc6; --c4: #e6b422; --c5: #a9b8ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 72rem; padding: 1.25rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word;
}
h1 { margin: .75rem 0 .25rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 2px solid var(--rule); font-size: 1.3rem; line-height: 1.3; }
h3 { margin: 1.5rem 0 .35rem; font-size: 1.05rem; }
p, ul { margin: .35rem 0 .75rem; max-width: 46rem; }
ul { padding-left: 1.25rem; }
small, .remark { color: var(--soft); font-size: .875rem; }
.notice { max-width: none; margin: 0; padding: .5rem .75rem; border-left: 4px solid var(--warn); background: var(--warn-paper); }
.status { padding: .1rem .6rem; border: 1px solid currentColor; border-radius: 1rem; color: var(--warn); font-weight: 600; }
.status.complete { color: var(--c2); }
.missing { padding: .75rem; border: 1px dashed var(--rule); }
.few { color: var(--warn); font-weight: 700; }
#summary h2 { border-top: 0; margin-top: 1rem; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1rem; margin: .75rem 0; }
.charts.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 30rem)); }
figure { margin: 0; max-width: 30rem; padding: .75rem; border-radius: .5rem; background: var(--card); }
figcaption { margin-bottom: .35rem; font-weight: 600; font-size: .95rem; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
svg text.name { fill: var(--ink); font-size: 12px; }
svg text.strong { font-weight: 700; }
.grid { stroke: var(--grid); fill: none; }
.axis, .reference { stroke: var(--soft); fill: none; stroke-width: .8; }
.reference { stroke-dasharray: 1 3; stroke-width: 1.2; stroke-linecap: round; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.line.muted { stroke-width: 1.3; stroke-dasharray: 5 3; }
.bar { stroke-width: 5; stroke-linecap: round; opacity: .45; fill: none; }
.bar.strong { stroke: var(--accent); } .bar.weak { stroke: var(--soft); }
.dot.strong { fill: var(--accent); } .dot.weak { fill: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .35rem 0 0; padding: 0; list-style: none; font-size: .85rem; }
.legend svg { width: 26px; height: 10px; margin-right: .35rem; }

.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .925rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
.scroll tr.strong > th:first-child { background: var(--card); }
th.text, td.text { text-align: left; } td.text { white-space: normal; min-width: 9rem; }
tr.strong > * { font-weight: 700; background: var(--card); }
.interval { white-space: nowrap; font-size: .92em; } td .interval { display: block; font-weight: 400; }
.heat td { min-width: 4.5rem; text-align: center; border: 1px solid var(--paper);
  background: color-mix(in srgb, var(--heat) calc(var(--share) * 85%), var(--card)); }
.heat td.hit { outline: 2px solid var(--ink); outline-offset: -3px; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--accent); }

.presence { margin: .5rem 0; } .presence dt { margin-top: .6rem; font-weight: 600; } .presence dd { margin: .2rem 0 0; }
.presence ol { display: flex; flex-wrap: wrap; gap: 3px; margin: 0; padding: 0; list-style: none; }
.presence li { min-width: 2.6rem; padding: .1rem .3rem; border: 1px solid var(--accent); border-radius: .25rem; text-align: center;
  font-size: .8rem; background: color-mix(in srgb, var(--heat) 25%, var(--paper)); }
.presence li.absent { border: 1px dashed var(--warn); background: var(--warn-paper); color: var(--warn); }
.presence li span + span { margin-left: .2rem; }
dl.facts { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: .25rem 1rem; margin: .5rem 0; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; max-width: 46rem; }
.hashes dd { font-family: ui-monospace, monospace; font-size: .875rem; }

@media (max-width: 32rem) {
  body { padding: .9rem; } h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; } th, td { padding: .3rem .45rem; }
  dl.facts { grid-template-columns: 1fr; gap: 0; } dl.facts dd { margin-bottom: .5rem; }
}
@media print {
  @page { margin: 14mm; }
  html { font-size: 10pt; } body { max-width: none; padding: 0; }
  h2, h3, h2 + p { break-after: avoid; } p { break-inside: avoid; } figure, tr, .presence dd { break-inside: avoid; }
  .charts { grid-template-columns: repeat(3, 1fr); gap: .5rem; } .charts.two { grid-template-columns: repeat(2, 1fr); }
  figure { padding: .4rem; } .charts:not(.two) svg text { font-size: 12.5px; }
  .scroll { overflow: visible; } .scroll th:first-child { position: static; }
  th, td { padding: .2rem .4rem; } table { font-size: 8.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
