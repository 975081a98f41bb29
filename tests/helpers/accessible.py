"""What keeps people from reading a page: rules of axe-core; text that is too small, clipped or beside the screen."""

import re

_SMALLEST = 10  # px, of text in pictures as it is shown
_OUTSIDE = 1  # px
_CONTRAST = 4.5

# Details are opened, for what they hide is read too
_MEASURE = r"""
(() => {
  const found = [];
  const [width, most] = [document.documentElement.scrollWidth, window.innerWidth];
  if (width > most) {
    const wide = [...document.body.querySelectorAll('*')].find((one) => {
      const scrolls = one.parentElement.closest('svg') !== null
        || [...ancestors(one)].some((each) => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(each).overflowX));
      return !scrolls && one.getBoundingClientRect().right > most + 1;
    });
    const name = wide ? `${wide.tagName.toLowerCase()}.${wide.getAttribute('class') ?? ''}` : 'something';
    found.push(`overflow: the page is ${width} px wide on a screen of ${most} px; see ${name}`);
  }
  for (const text of document.querySelectorAll('svg text')) {
    text.scrollIntoView({ block: 'center', behavior: 'instant' });
    const box = text.getBoundingClientRect();
    if (!box.width || getComputedStyle(text).visibility === 'hidden') continue;
    const matrix = text.getScreenCTM();
    const size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b);
    if (size < SMALLEST - 0.01) found.push(`small: '${text.textContent}' is ${size.toFixed(1)} px high`);
    const frame = text.ownerSVGElement.getBoundingClientRect();
    const ratio = contrast(getComputedStyle(text).fill, behind(text));
    if (ratio < CONTRAST) found.push(`pale: '${text.textContent}' has a contrast of ${ratio.toFixed(1)}`);
    const [left, top] = [frame.left - box.left, frame.top - box.top];
    const out = Math.max(left, top, box.right - frame.right, box.bottom - frame.bottom);
    if (out > OUTSIDE) found.push(`clipped: '${text.textContent}' ends ${out.toFixed(1)} px outside its picture`);
  }
  return found;

  // What a text stands on: the colour of the shape or the page, past lines, which have no area. axe-core does not look
  // at text in pictures
  function behind(text) {
    const box = text.getBoundingClientRect();
    const below = document.elementsFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
    const colours = below.filter((one) => !one.closest('text, line')).map((one) => {
      const style = getComputedStyle(one);
      return one.ownerSVGElement ? style.fill : style.backgroundColor;
    });
    return colours.find((colour) => parts(colour).length === 3) ?? 'rgb(255, 255, 255)';
  }

  function contrast(one, other) {
    const [low, high] = [one, other].map((colour) => 0.05 + luminance(parts(colour))).sort((a, b) => a - b);
    return high / low;
  }

  function luminance(levels) {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = levels.map((level) => linear(level / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function parts(colour) {
    return (colour.match(/[\d.]+/g) ?? []).map(Number);
  }

  function* ancestors(one) {
    for (let each = one.parentElement; each; each = each.parentElement) yield each;
  }
})()
"""


def violations(browser, page, *, width=1280, dark=False, prepare=None, rules=None):
    """What is wrong with a page, a sentence for each fault.

    Args:
        browser: of `helpers.browsers`.
        page: a URL, or the path of a file.
        width: of the screen in px.
        dark: whether the reader asks for dark pages.
        prepare: called before the page is looked at, to fill it.
        rules: of axe-core; None for all.
    """
    browser.open(page, width=width, dark=dark)
    if prepare is not None:
        prepare()
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    numbers = {"SMALLEST": _SMALLEST, "OUTSIDE": _OUTSIDE, "CONTRAST": _CONTRAST}
    measured = browser.evaluate(re.sub("|".join(numbers), lambda name: str(numbers[name[0]]), _MEASURE))
    of_axe = [
        f"{found['id']}: {found['help']}; {len(found['nodes'])} times, first {found['nodes'][0]}"
        for found in browser.axe(rules)
    ]
    return [*measured, *(" ".join(sentence.split()) for sentence in of_axe)]
