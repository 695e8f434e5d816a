"""A reader of the pages that jmer writes."""

import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and the texts between them."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts, self.scripts = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        inside = self.tags and self.tags[-1][0] in ("script", "style") and self.cdata_elem
        (self.scripts if inside else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self):
        return json.loads(next(text for text in self.scripts if text.startswith('{"emotions"')))
