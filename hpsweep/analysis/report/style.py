"""How a report's page looks: no font and no picture from outside, light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5b5f66; --paper: #fff; --panel: #f6f7f9; --rule: #d9dce1;
  --good: #00674a; --caution: #8a5300; --bad: #a8321a; --link: #00568a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --soft: #a9adb5; --paper: #16181b; --panel: #1f2226; --rule: #3a3f46;
    --good: #4fcf9f; --caution: #f0b050; --bad: #ff8f70; --link: #7cc0f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.75rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
.about, .note, figcaption, nav { color: var(--soft); font-size: .9rem; }
nav ul { list-style: none; margin: 1rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
.verdict { background: var(--panel); border: 1px solid var(--rule); border-radius: .6rem; padding: .35rem 1.1rem .8rem;
  margin-top: 1.25rem; }
.verdict h2 { border: 0; margin: 0; padding: .6rem 0 0; font-size: 1.1rem; }
dl { margin: 0; }
dt { font-weight: 650; margin-top: .75rem; padding-left: 1.35rem; text-indent: -1.35rem; }
dd { margin: .1rem 0 .2rem 1.35rem; max-width: 46rem; }
dd ul { margin: 0; padding-left: 1.1rem; }
dd li { margin: .15rem 0; }
.verdict dt:first-child + dd { font-size: 1.1rem; }
.mark { display: inline-block; width: 1.35rem; text-indent: 0; font-size: .85em; }
.good .mark, .good.status { color: var(--good); } .caution .mark, .caution.status { color: var(--caution); }
.bad .mark, .bad.status { color: var(--bad); } .none .mark, .none.status { color: var(--soft); }
.status { white-space: nowrap; font-weight: 600; } .status .mark { width: 1.2em; }
.scroll { background: linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 2rem 100%,
    linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 2rem 100%,
    linear-gradient(to right, #0004, transparent) 0 0 / .7rem 100%,
    linear-gradient(to left, #0004, transparent) 100% 0 / .7rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll;
  overflow-x: auto; width: fit-content; min-width: min(22rem, 100%); max-width: 100%; margin: 1rem 0 .25rem;
  border: 1px solid var(--rule); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .6rem; color: var(--ink); }
caption span { display: inline-block; position: sticky; left: .6rem; max-width: calc(100vw - 4.5rem); }
th, td { padding: .38rem .6rem; text-align: left; vertical-align: top; border-top: 1px solid var(--rule); }
.wide th, .wide td { padding-inline: .42rem; } .wide table { font-size: .86rem; }
thead th { min-width: 3.5rem; font-weight: 600; color: var(--soft); vertical-align: bottom; background: var(--panel); }
thead th small { display: block; font-weight: 400; white-space: nowrap; }
tbody th { font-weight: 400; }
td.number, th.number { text-align: right; }
td.number, td.short, tbody th { white-space: nowrap; }
td.words, th.words { min-width: 12rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem;
  margin: 1rem 0; }
figure { margin: 0; max-width: 30rem; }
figure svg { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--rule);
  border-radius: .4rem; padding: .35rem; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
figure h3 { font-size: 1rem; margin: 0 0 .35rem; }
@media (min-width: 64rem) {
  .wide { margin-inline: calc(50% - min(50vw - 1.5rem, 42rem)); }
  .wide .scroll { margin-inline: auto; min-width: min(59.5rem, 100%); }
  .wide .note { max-width: 59.5rem; margin-inline: auto; } }
details { margin: 1rem 0; } dd details { margin: .1rem 0 .3rem; } summary { cursor: pointer; color: var(--link); }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: .4rem; padding: .7rem .9rem;
  overflow-x: auto; font-size: .88rem; }
sup { font-size: .72em; line-height: 0; }
@media (max-width: 32rem) {
  main { padding: 1rem .9rem 3rem; } h1 { font-size: 1.45rem; } .verdict { padding: .2rem .8rem .6rem; } }
@media print {
  nav { display: none; } .scroll { overflow: visible; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
""".strip()
