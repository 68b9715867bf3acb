// Looks at a page as it is painted; every function gives plain values.
globalThis.audit = (() => {
  const numbers = (colour) => {
    const found = colour.match(/[\d.]+/g).map(Number);
    return found.length > 3 ? found : [...found, 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
  const background = (node) => node === null
    ? [255, 255, 255, 1]
    : over(numbers(getComputedStyle(node).backgroundColor), background(node.parentElement));
  const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);

  function ratio(one, other) {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  }

  // Text on what is behind it, WCAG 2.2, 1.4.3; what only a screen reader is given has no colour.
  function contrast(least) {
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const words = walker.currentNode.data.trim(), node = walker.currentNode.parentElement;
      if (!words || node.closest("script, style, title, desc, .unseen, .skip")) continue;
      const style = getComputedStyle(node), below = background(node);
      const found = ratio(over(numbers(node.closest("svg") ? style.fill : style.color), below), below);
      if (found < least) poor.push(`${found.toFixed(2)} ${node.tagName}.${node.getAttribute("class")}: ${words}`);
    }
    return poor;
  }

  // What sticks out on the right, other than from a part that scrolls by itself.
  function overflow() {
    const wide = document.documentElement.clientWidth;
    const out = [...document.body.querySelectorAll("*")].filter((each) =>
      !each.closest(".scroll, pre, .skip, .unseen") && each.getBoundingClientRect().right > wide + 0.5);
    return [document.documentElement.scrollWidth - wide, out.map((each) => `${each.tagName}.${each.className}`)];
  }

  // Letters outside their picture are cut off.
  function cut() {
    return [...document.querySelectorAll("svg text")].filter((each) => {
      const box = each.getBoundingClientRect(), frame = each.closest("svg").getBoundingClientRect();
      return box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
    }).map((each) => each.textContent);
  }

  function focus() {
    const now = document.activeElement, style = getComputedStyle(now);
    const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    return [now.tagName, seen && now.getBoundingClientRect().left >= 0];
  }

  function moving() {
    return [...document.querySelectorAll("*")].map((each) => getComputedStyle(each)).filter((style) =>
      parseFloat(style.transitionDuration) > 0 || style.animationName !== "none").length;
  }

  return { contrast, overflow, cut, focus, moving };
})();
