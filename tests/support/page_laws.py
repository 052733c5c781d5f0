"""What every page must be in a real browser: for eyes, keyboard, screen reader, narrow and wide screens, and paper."""

from typing import Any

PAPER = 703  # CSS pixels of an A4 page within its margins of 12 mm
SCREENS = (390, 1280, 1920)
LOOK = """() => {
  const wrong = [], say = (what, part) => wrong.push(`${what}: ${(part.outerHTML || part).slice(0, 120)}`);
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  if (document.querySelectorAll("main").length !== 1) wrong.push("not one main");
  const skip = document.querySelector("body > a.skip:first-child");
  if (!skip || !document.querySelector(skip.getAttribute("href"))) wrong.push("no link that skips to main");
  document.querySelectorAll("img").forEach((part) => { if (!part.alt.trim()) say("no alt text", part); });
  document.querySelectorAll("a, button, input, select, summary").forEach((part) => { if (part.tabIndex < 0) say("not reached by keys", part); });
  document.querySelectorAll("table").forEach((part) => { if (!part.caption?.textContent.trim()) say("no caption", part); });
  const scrolls = (style) => /auto|scroll/.test(style.overflowX + style.overflowY);
  document.querySelectorAll("body *").forEach((part) => {
    const more = part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1;
    const reached = part.tabIndex >= 0 || part.querySelector("a, button, input, select");
    if (more && part.clientWidth && scrolls(getComputedStyle(part)) && !reached) say("scrolls without keys", part);
  });
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (rgb) => [0, 1, 2].map((i) => rgb[i] / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const groundOf = (part) => {
    const own = [];
    for (let at = part; at; at = at.parentElement) own.push(parse(getComputedStyle(at).backgroundColor));
    return own.reverse().reduce((below, top) => over(top, below), parse(getComputedStyle(document.body).backgroundColor));
  };
  const seen = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const part = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || seen.has(part) || !part.getClientRects().length) continue;
    if (part.closest("script, style, .heatmaplayer, .unseen, .hm")) continue;  // Plotly itself chooses the ink of a cell
    seen.add(part);
    const style = getComputedStyle(part), drawn = part instanceof SVGElement;
    if (style.visibility !== "visible" || style.opacity === "0") continue;
    const ground = groundOf(part), ink = parse(drawn ? style.fill : style.color);
    for (let at = part; at; at = at.parentElement) ink[3] *= Number(getComputedStyle(at).opacity);
    const [low, high] = [light(over(ink, ground)), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)}`, part);
  }
  return wrong;
}"""
CUT = """(width) => [...document.querySelectorAll("table, figure > svg")].filter((part) => {
  const box = part.parentElement, edge = part.getBoundingClientRect().right;
  return part.getClientRects().length && (box.scrollWidth > box.clientWidth + 1 || edge > width + 1);
}).map((part) => `${part.caption?.textContent ?? part.ariaLabel} ${part.getBoundingClientRect().right} of ${width}`)"""
UNSAID = """() => [...document.querySelectorAll("body *")].filter((part) => {
  const style = getComputedStyle(part);
  return part.scrollWidth > part.clientWidth + 1 && part.clientWidth && /auto|scroll/.test(style.overflowX) && style.backgroundImage === "none";
}).map((part) => part.outerHTML.slice(0, 120))"""
HIDDEN = """() => [...document.querySelectorAll("details")]
  .filter((part) => !part.closest("figure.plot") && part.lastElementChild.getBoundingClientRect().height < 10)
  .map((part) => part.textContent.slice(0, 60))"""
NAMED = {"heading", "image", "table", "region"}


def find_faults(page: Any, *, broad: bool = False) -> list[str]:
    """What is wrong with an open page. `broad` says that its tables have more columns than 1280 pixels hold: they may scroll."""
    wrong = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for _ in range(40):  # until plots are drawn again in its colours
            if not (said := page.evaluate(LOOK)):
                break
            page.wait_for_timeout(250)
        wrong += [f"{scheme}: {one}" for one in said]
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    wrong += [f"{role} without a name" for role, name in found if role in NAMED and not name.strip()]
    headings = [name for role, name in found if role == "heading"]
    wrong += [f"two headings alike: {name}" for name in sorted(set(headings)) if headings.count(name) > 1]
    for width in SCREENS:
        page.set_viewport_size({"width": width, "height": 900})
        for _ in range(40):  # until plots have their new width
            if (reach := page.evaluate("document.documentElement.scrollWidth")) <= width:
                break
            page.wait_for_timeout(250)
        wrong += [f"{reach} px wide on a screen of {width}"] if reach > width else []
        wrong += [f"scrolls on a screen of {width} and does not show it: {said}" for said in page.evaluate(UNSAID)]
        if width >= 1280 and not broad:
            wrong += [f"cut: {said}" for said in page.evaluate(CUT, width)]
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = false; })")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    return wrong + [f"print: {said}" for said in [*page.evaluate(CUT, PAPER), *page.evaluate(HIDDEN)]]
