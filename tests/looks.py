"""What can be measured of how a page looks: room, overlaps, names for screen readers, contrast of text."""

CONTROLS = "button, input, select, textarea, summary, a[href], [tabindex='0']"

COVERED = """(root, controls) => {
    const wrong = [];
    const shown = (node) => {
        let box = node.getBoundingClientRect();
        let [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom];
        for (let up = node.parentElement; up; up = up.parentElement) {
            if (getComputedStyle(up).overflow === "visible") continue;
            const edge = up.getBoundingClientRect();
            [left, top] = [Math.max(left, edge.left), Math.max(top, edge.top)];
            [right, bottom] = [Math.min(right, edge.right), Math.min(bottom, edge.bottom)];
        }
        [right, bottom] = [Math.min(right, innerWidth), Math.min(bottom, innerHeight)];
        return [Math.max(left, 0), Math.max(top, 0), right, bottom];
    };
    const nameOf = (node) => node.id || node.getAttribute("aria-label") || node.textContent;
    const told = (node) => `${node.tagName} ${nameOf(node)}`;
    for (const node of document.querySelectorAll(controls)) {
        if (!node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        const [left, top, right, bottom] = shown(node);
        if (right - left < 4 || bottom - top < 4) continue; // scrolled out of sight
        const seen = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
        const other = seen?.closest(controls);
        let bar = other; // what scrolls goes below a bar that stays
        while (bar && getComputedStyle(bar).position !== "sticky") bar = bar.parentElement;
        if (bar && !bar.contains(node)) continue;
        const isOwn = node.contains(seen) || seen?.contains(node) || node.closest("label")?.contains(seen);
        if (!isOwn && other) wrong.push(`${told(node)} lies under ${told(other)}`.slice(0, 160));
    }
    return wrong;
}"""

CONTRAST = """(root) => {
    const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
    const ground = (node) => {
        const own = rgba(getComputedStyle(node).backgroundColor);
        if (own[3] > 0.99) return own.slice(0, 3);
        return over(own, node.parentElement ? ground(node.parentElement) : rgba("Canvas"));
    };
    const opacity = (node) =>
        Number(getComputedStyle(node).opacity) * (node.parentElement ? opacity(node.parentElement) : 1);
    const light = (colour) => {
        const [r, g, b] = colour.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const wrong = new Map();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const node = text.parentElement;
        if (!text.data.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
        if (node.closest(":disabled, label:has(:disabled), script, style, noscript, svg")) continue;
        const style = getComputedStyle(node);
        const below = ground(node);
        const ink = rgba(style.color);
        const [a, b] = [light(over([...ink.slice(0, 3), ink[3] * opacity(node)], below)), light(below)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if (ratio < (isLarge ? 3 : 4.5)) {
            const kind = `${node.tagName}.${node.className}`;
            wrong.set(kind, `"${text.data.trim().slice(0, 40)}" in ${kind}: ${ratio.toFixed(2)}`);
        }
    }
    return [...wrong.values()];
}"""

WIDE = """(root) => [root.scrollWidth - innerWidth, document.body.scrollWidth - innerWidth]"""

NAMED = {
    "button", "link", "textbox", "searchbox", "checkbox", "radio", "slider", "spinbutton", "combobox",
    "meter", "progressbar", "gridcell", "grid", "dialog", "application", "img", "toolbar", "radiogroup",
    "region",
}  # fmt: skip
"""Roles whose elements must have a name for screen readers."""


def without_name(page) -> list[str]:
    """Return the elements that a screen reader would meet and could not name."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        f"{node['role']['value']} {node.get('properties', '')}"[:200]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in NAMED
        and not node.get("name", {}).get("value", "").strip()
    ]


def covered(page) -> list[str]:
    """Return the controls in sight whose middle lies under another control."""
    return page.locator("html").evaluate(COVERED, CONTROLS)


def pale(page) -> list[str]:
    """Return texts with less contrast to what is behind them than WCAG's AA wants."""
    return page.locator("html").evaluate(CONTRAST)


def overflow(page) -> float:
    """Return by how many pixels the page is wider than the window."""
    return max(0, *page.locator("html").evaluate(WIDE))
