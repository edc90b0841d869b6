/** The report's style sheet: readable on a phone, in the dark, and on paper. */
import { Html } from "./html.js";

// Not through the template: a style sheet holds characters that HTML text would escape.
export const reportStyle = new Html(`
:root { --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --paper: #fff; --tint: #f4f6f8; --student: #1f6feb; --plain: #8a6d3b;
  --dev: #8250df; --cross: #6e7781; --right: 31, 136, 61; --wrong: 207, 34, 46; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117; --tint: #161b22;
  --student: #58a6ff; --plain: #d4a657; --dev: #bc8cff; --cross: #9198a1; --right: 63, 185, 80; --wrong: 248, 81, 73; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.kind, .note, footer, figcaption, small, dt, .headline span { color: var(--soft); }
.kind { margin: 0; font-size: .9rem; }
.lead { font-size: 1.15rem; max-width: 46rem; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.headline div { background: var(--tint); border-radius: .5rem; padding: .7rem .8rem; }
dt { font-size: .85rem; } dd { margin: 0; }
.headline strong { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.headline span { font-size: .8rem; }
.advice li { margin: .4rem 0; max-width: 50rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; }
th, td { padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td small { white-space: nowrap; }
td.text { min-width: 14rem; white-space: pre-line; overflow-wrap: anywhere; }
tr.chosen td { font-weight: 600; } tr.chosen small { font-weight: 400; }
.yes { color: rgb(var(--right)); } .no { color: rgb(var(--wrong)); }
.confusion { width: auto; } .confusion caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
.confusion td { text-align: center; min-width: 2.4rem; padding: .3rem; border: 1px solid var(--line); }
.confusion td.right { background: rgba(var(--right), calc(var(--share) * .75)); }
.confusion td.wrong { background: rgba(var(--wrong), calc(var(--share) * .75)); }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem; border: 0; }
.confusion thead th:first-child { writing-mode: initial; transform: none; vertical-align: bottom; }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: .5rem 0 1rem; } svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; }
.grid { stroke: var(--line); stroke-width: 1; } .tick { fill: var(--soft); font-size: 11px; }
.series polyline { fill: none; stroke-width: 2; } .series line { stroke-width: 2; }
.series.test, .series.campaign, .key.test, .key.campaign { --hue: var(--student); }
.series.dev, .key.dev { --hue: var(--dev); } .series.cross-fit, .key.cross-fit { --hue: var(--cross); }
.series.plain, .key.plain { --hue: var(--plain); }
.series polyline, .series line { stroke: var(--hue); } .series circle { fill: var(--hue); } .series rect { fill: var(--hue); opacity: .12; }
.series.plain line { stroke-dasharray: 6 4; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; border-radius: 50%; background: var(--hue); margin-right: .35em; }
.key { margin-right: 1rem; color: var(--ink); }
.bars { list-style: none; padding: 0; } .bars li { display: grid; grid-template-columns: 12rem 1fr; align-items: center; margin: .2rem 0; }
.bars b { background: linear-gradient(var(--student), var(--student)) no-repeat; background-size: calc(var(--share) * 88%) 1.1em;
  background-position: 0 50%; font-weight: 400; padding-left: calc(var(--share) * 88% + .4rem); }
.asked div { display: grid; grid-template-columns: 9rem 1fr; gap: .5rem; padding: .15rem 0; } .asked dd { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .75rem 0; } summary { cursor: pointer; font-weight: 600; }
pre { background: var(--tint); border-radius: .5rem; padding: .8rem; overflow-x: auto; font-size: .85rem; }
code { overflow-wrap: anywhere; } footer { margin-top: 3rem; font-size: .85rem; }
@media (max-width: 36rem) { body { padding: 1rem .75rem 3rem; } h1 { font-size: 1.5rem; } .tick { font-size: 17px; } .asked div { grid-template-columns: 1fr; gap: 0; }
  .bars li { grid-template-columns: 8rem 1fr; } }
@media print { body { max-width: none; font-size: 11pt; } h2 { break-after: avoid; } tr, figure, .headline div { break-inside: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
`);
