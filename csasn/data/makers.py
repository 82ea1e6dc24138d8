"""The maker of a scanner, told from free text: a fixed list of names, so that no text of a site or a device goes any further."""

import re

# words that stand alone, or begin a word; brands that changed hands are of who sells them today
_BRANDS = {
    "GE": r"ge|gems|gehc|general electric|logiq\w*|voluson\w*|vivid\w*|vscan\w*",
    "Philips": r"philips\w*|atl|epiq\w*|affiniti\w*|iu22|hdi|clearvue\w*|lumify\w*",
    "Siemens": r"siemens\w*|acuson\w*",
    "Samsung Medison": r"samsung\w*|medison\w*|sonoace\w*|accuvix\w*",
    "Canon Toshiba": r"canon\w*|toshiba\w*|aplio\w*|xario\w*",
    "Mindray": r"mindray\w*|resona\w*|zonare\w*",
    "Fujifilm Hitachi Aloka": r"fujifilm\w*|hitachi\w*|aloka\w*|arietta\w*|prosound\w*|sonosite\w*",
    "Esaote": r"esaote\w*|mylab\w*",
    "SuperSonic Hologic": r"supersonic\w*|hologic\w*|aixplorer\w*",
}
_PATTERNS = {maker: re.compile(rf"\b(?:{words})\b") for maker, words in _BRANDS.items()}
OTHER, SEVERAL, UNKNOWN = "another maker", "several makers", "unknown maker"
MAKERS = (*_BRANDS, OTHER, SEVERAL, UNKNOWN)


def maker_of(text: str) -> str:
    """The maker that a text names, one of `MAKERS`; the first of them where it names two."""
    words = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    if not words:
        return UNKNOWN
    return next((maker for maker, pattern in _PATTERNS.items() if pattern.search(words)), OTHER)
