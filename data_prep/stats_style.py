"""The frame and the style sheet of `data-prep stats`; light and dark, from 320 px on."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #fff; --text: #1c1e21; --dim: #666b73; --line: #e2e4e8; --soft: #f4f5f7;
  --on: #fff; --c0: #2f6690; --c1: #b5472f; --c2: #8a6414; --c3: #3f7061; --c4: #6a4c93; --c5: #8d5524; --c6: #2c6e7f;
  --c7: #6b6b6b }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #15171a; --text: #e8eaed; --dim: #9aa0a8; --line: #30343a;
  --soft: #1e2125; --on: #111; --c0: #7fb2dd; --c1: #e58a73; --c2: #e3b75d; --c3: #86bda7; --c4: #b39ddb; --c5: #c99668;
  --c6: #74b9c4; --c7: #a8a8a8 }} }}
* {{ box-sizing: border-box }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto 4rem; padding: 0 1rem;
  background: var(--paper); color: var(--text); font-variant-numeric: tabular-nums }}
h1 {{ font-weight: 650; font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere }}
h2 {{ margin: 3rem 0 .8rem; font-weight: 600; font-size: 1.2rem }}
h3 {{ margin: 1.4rem 0 .4rem; font-weight: 500; font-size: 1rem }}
.note {{ color: var(--dim); margin: .2rem 0 .8rem; max-width: 44rem }} .note b {{ color: var(--text) }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr)); gap: .6rem }}
.facts div {{ background: var(--soft); border-radius: 8px; padding: .7rem .9rem; color: var(--dim); font-size: .9rem }}
.facts b {{ display: block; color: var(--text); font-size: 1.45rem; font-weight: 600; line-height: 1.3 }}
.share {{ display: flex; gap: 2px; height: 2.6rem; margin-bottom: 1rem; border-radius: 6px; overflow: hidden }}
.share div {{ min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--on);
  padding: 0 .6em; line-height: 2.6rem; font-size: .85rem }}
.share div:empty {{ padding: 0 }}
.legend {{ display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; color: var(--dim) }}
i {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em }}
.columns {{ display: flex; gap: 3px; align-items: flex-end; margin-top: 2rem }}
.column {{ flex: 1; min-width: 0; text-align: center }}
.stack {{ height: 14rem; display: flex; flex-direction: column-reverse; gap: 1px;
  border-bottom: 1px solid var(--line) }}
.stack div {{ flex: none }}
.stack div:last-of-type {{ border-radius: 3px 3px 0 0 }}
.stack em {{ font-style: normal; color: var(--dim); font-size: clamp(8px, 2.3vw, 12px); line-height: 1.6 }}
.column span {{ font-size: clamp(9px, 2.4vw, 12px); color: var(--dim) }}
.range, .ticks {{ position: relative; height: 1.2rem; min-width: 5rem }}
.range b {{ position: absolute; top: 50%; transform: translateY(-50%) }}
.range .line {{ height: 2px; background: var(--dim); opacity: .6 }}
.range .box {{ height: .75rem; min-width: 3px; border-radius: 2px }}
.range .median {{ width: 2px; margin-left: -1px; height: 1.1rem; background: var(--text) }}
.ticks span {{ position: absolute; transform: translateX(-50%); font-weight: 400; font-size: .8rem }}
.bar {{ display: grid; grid-template-columns: minmax(6rem, 12rem) 1fr 8rem; gap: .8rem; align-items: center;
  margin: .35rem 0 }}
.bar span {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap }}
.bar span:last-child {{ text-align: right }}
.bar small {{ color: var(--c1) }}
.bar > div {{ background: var(--soft); border-radius: 4px }}
.bar div div {{ height: 1.1rem; min-width: 1px; border-radius: 4px; background: var(--c0) }}
.scroll {{ overflow-x: auto; margin: .6rem 0 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; white-space: normal; min-width: 5rem }}
th {{ font-weight: 500; color: var(--dim); vertical-align: bottom }}
tr:last-child td {{ border-bottom: 0 }}
.sources th:last-child, .sources td:last-child {{ width: 38%; padding-right: 0 }}
.zero {{ color: var(--dim) }}
.plain {{ width: auto }}
.plain td:first-child {{ white-space: normal }}
.names th, .names td {{ text-align: left; white-space: normal; overflow-wrap: anywhere }}
details {{ margin: .5rem 0 }} summary {{ cursor: pointer; color: var(--c0) }}
blockquote {{ margin: .6rem 0; padding: .5rem .8rem; background: var(--soft); border-radius: 6px;
  overflow-wrap: anywhere }}
blockquote small {{ display: block; color: var(--dim) }}
@media (max-width: 40rem) {{
  body {{ margin-top: 1rem }}
  .facts {{ grid-template-columns: 1fr 1fr }}
  .sources th:nth-child(2), .sources td:nth-child(2), .sources th:nth-child(5), .sources td:nth-child(5)
    {{ display: none }}
  .sources th:last-child, .sources td:last-child {{ width: 30% }}
  table {{ font-size: .85rem }} th, td {{ padding: .35rem .25rem }} td i {{ margin-right: .3em }}
  th {{ white-space: normal }} td:first-child {{ overflow-wrap: anywhere }}
  .bar {{ grid-template-columns: 6.5rem 1fr 6.5rem; gap: .5rem; font-size: .9rem }}
}}
</style>
<h1>{title}</h1>
{body}
</html>
"""
