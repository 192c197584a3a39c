from html.parser import HTMLParser

from simvlm_jax.pages.page import page


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], {}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag = self.tags[-1][0] if self.tags else ""
        self.texts[tag] = self.texts.get(tag, "") + data


def test_the_title_is_escaped_and_nothing_is_loaded():
    reader = Reader()
    reader.feed(page("<script>1</script>", "<p>hello</p>"))
    names = [tag for tag, _ in reader.tags]
    assert "script" not in names and "link" not in names
    assert reader.texts["title"].strip() == "<script>1</script>"
    policy = [a["content"] for t, a in reader.tags if t == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "hello" in reader.texts["p"]
