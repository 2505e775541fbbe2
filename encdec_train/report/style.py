"""The look of a report: one column of text, figures in tabular numerals, light and dark."""

CSS = """
:root {
  --paper: #fdfcfa; --ink: #1d1c1a; --soft: #6b6862; --rule: #dedad3; --wash: #f3f0ea;
  --blue: #2a63b8; --good: #1f7a4d; --bad: #b3382c;
  --one: #2a63b8; --two: #c2571a; --three: #1f7a4d; --four: #8e3ea8; --five: #8a6d00; --six: #b3386d;
  --seven: #16777d; --eight: #7a4a21; --nine: #5a5a5a; --ten: #4a3fb5;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #161719; --ink: #e7e4de; --soft: #9d9991; --rule: #34353a; --wash: #1e2023;
    --blue: #7fb0f5; --good: #6cc79a; --bad: #f08b7f;
    --one: #7fb0f5; --two: #f2a36b; --three: #6cc79a; --four: #cf9be0; --five: #d9bd5c; --six: #f090b8;
    --seven: #5fc4c9; --eight: #d0a06f; --nine: #b5b5b5; --ten: #a9a2ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1, h2 {
  font-family: ui-serif, Charter, "Iowan Old Style", Georgia, serif; font-weight: 600; line-height: 1.2;
}
h1 { font-size: clamp(1.7rem, 5vw, 2.4rem); margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .9rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
p { margin: .4rem 0; max-width: 42rem; }
.soft, figcaption, thead th { color: var(--soft); }
.state {
  display: inline-block; margin-left: .3rem; padding: 0 .55rem; color: var(--soft); vertical-align: .08em;
  border: 1px solid currentColor; border-radius: 1rem;
  font: 400 .85rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
.state.good { color: var(--good); } .state.bad { color: var(--bad); }
dl.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1.1rem;
  margin: 1.8rem 0 0;
}
dl.facts div { border-top: 2px solid var(--ink); padding-top: .45rem; }
dl.facts dt { font-size: .85rem; color: var(--soft); }
dl.facts dd { margin: 0; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1.6rem 2rem;
}
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; margin-bottom: .35rem; }
figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text {
  font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums;
}
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .raw { fill: none; stroke: var(--blue); stroke-width: 1; opacity: .3; }
svg .line {
  fill: none; stroke: var(--blue); stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round;
}
.c0 { --blue: var(--one); } .c1 { --blue: var(--two); } .c2 { --blue: var(--three); }
.c3 { --blue: var(--four); } .c4 { --blue: var(--five); } .c5 { --blue: var(--six); }
.m0 { fill: var(--one); } .m1 { fill: var(--two); } .m2 { fill: var(--three); } .m3 { fill: var(--four); }
.m4 { fill: var(--five); } .m5 { fill: var(--six); } .m6 { fill: var(--seven); } .m7 { fill: var(--eight); }
.m8 { fill: var(--nine); } .m9 { fill: var(--ten); }
svg .pale { fill: var(--rule); }
svg .middle {
  font-size: 13px; font-weight: 600; text-anchor: middle; fill: var(--ink);
  paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round;
}
.classes { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0 0; padding: 0; }
.classes svg { display: inline-block; width: .7rem; margin-right: .35rem; }
svg.layers { max-width: 34rem; }
svg rect.now { fill: var(--blue); } svg rect.before { fill: var(--blue); opacity: .35; }
.legend { list-style: none; margin: 1rem 0 0; padding: 0; }
.legend svg { display: inline-block; width: 1.6rem; margin-right: .5rem; vertical-align: middle; }
.wide { overflow-x: auto; }
svg .now { fill: var(--blue); }
svg .stage { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; }
thead th { font-weight: 400; font-size: .85rem; }
tbody th { font-weight: 600; }
tbody th .soft { font-weight: 400; }
th, td { padding: .45rem 1rem .45rem 0; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.up { color: var(--good); } td.down { color: var(--bad); }
.plain td { font-size: .92rem; overflow-wrap: anywhere; }
.plain td:first-child { color: var(--soft); width: 32%; min-width: 9rem; overflow-wrap: break-word; }
img { max-width: 100%; height: auto; border-radius: 2px; }
.samples figure + figure, .samples details { margin-top: 1.6rem; }
.samples details figure { margin-top: .8rem; }
pre {
  margin: .6rem 0 0; padding: .9rem 1rem; background: var(--wash); border-radius: 4px; overflow-x: auto;
  font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
summary { cursor: pointer; }
summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--blue); outline-offset: 3px; }
footer { margin-top: 3rem; font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding-top: 1.5rem; }
  .probes tr {
    display: grid; grid-template-columns: 1fr repeat(3, 4.9rem); border-bottom: 1px solid var(--rule);
  }
  .probes th, .probes td { border: 0; padding-right: 0; }
  .probes td:last-child { grid-column: 1 / -1; padding-top: 0; color: var(--soft); font-size: .92rem; }
  .probes thead th:last-child { display: none; }
}
@media print {
  body { padding: 0; }
  h2 { break-after: avoid; }
  figure { break-inside: avoid; }
}
"""
