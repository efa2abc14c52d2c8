"""One set of colours for page and figures: six hues that stay apart for colour-blind eyes, on paper and slate."""

# Searched for the largest least distance under normal, deuteranope and protanope sight (Machado et al. 2009), at 3:1 or
# more against the background; tests/report holds them to it.
LIGHT = ("#1f76bc", "#cb6410", "#159c75", "#6c1658", "#473911", "#5e12c5")
DARK = ("#a8d4f7", "#d9703f", "#5fe0a6", "#ec5fae", "#e6cb3a", "#8f7bea")

# name: (light, dark)
SURFACES = {
    "paper": ("#fbfbf9", "#14171a"),
    "panel": ("#ffffff", "#1a1e22"),
    "sunk": ("#f1f2ee", "#20252a"),
    "ink": ("#1a1c1f", "#e4e6e3"),
    "soft": ("#5a6066", "#9fa7ad"),
    "faint": ("#b9bcb8", "#4a5158"),
    "good": ("#116b43", "#6fd6a0"),
    "bad": ("#a8251f", "#ff9a8f"),
    "rule": ("#dcddd8", "#2c3237"),
}


def css() -> str:
    """The colours as custom properties; the browser picks the half that its colour scheme asks for."""
    series = {f"s{i}": pair for i, pair in enumerate(zip(LIGHT, DARK, strict=True))}
    lines = [f"  --{name}: light-dark({light}, {dark});" for name, (light, dark) in {**SURFACES, **series}.items()]
    return "\n".join([":root {", *lines, "}", ""])
