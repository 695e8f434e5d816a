"""The pages of runs and of predictions in a real browser: navigation, filters, keyboard, phone widths and security."""

import re
import shutil
from urllib.parse import urlencode

import numpy as np
import predicted
import pytest
from example_report import EMOTIONS, HOSTILE, report_and_splits

from jmer.evaluation.colours import emotion_colours
from jmer.evaluation.html_report import write_html_report
from jmer.evaluation.prediction_files import write_prediction_files

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[test]')")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Select = pytest.importorskip("selenium.webdriver.support.select").Select

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
REPORT, SPLITS = report_and_splits()
RIGHT, WRONG, UNLABELLED = "✓ correct", "✗ wrong", "– unlabelled"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER)) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_html_report(tmp_path_factory.mktemp("page"), REPORT, SPLITS).as_uri()


@pytest.fixture
def page(browser, address):
    """The page in a wide window, reloaded for each test; no test may leave messages on the console."""
    show(browser, address, width=1280)
    yield browser
    assert browser.get_log("browser") == []


def show(browser, address, *, width, scheme="light"):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    browser.get(address)


def settled(browser):
    """Waits until the page has been redrawn after the last action."""
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
    return browser


def choose(browser, name, value):
    Select(settled(browser).find_element(By.ID, name)).select_by_value(value)


def chosen(browser, name):
    return settled(browser).find_element(By.ID, name).get_property("value")


def click(browser, name):
    settled(browser).find_element(By.ID, name).click()


def cards(browser):
    """Returns the text of each shown utterance with whitespace collapsed."""
    return [" ".join(item.text.split()) for item in settled(browser).find_elements(By.CSS_SELECTOR, "#utterances > li")]


def expected_card(split, conversation, i):
    """Returns the texts of an utterance's card, and its percentages and fusion weights in order."""
    found = SPLITS[split]
    c, predictions = found.conversations[conversation], found.predictions
    row = predictions.probabilities[conversation][i]
    gold, guess = c.labels[i], row.argmax()
    texts = [f"{i + 1} · {c.speakers[i]} · {c.utterances[i]}", " ".join(c.sentences[i].split())]
    texts.append(f"predicted {EMOTIONS[guess]}")
    texts.append(UNLABELLED if gold < 0 else f"{RIGHT if gold == guess else WRONG} · gold {EMOTIONS[gold]}")
    attention = predictions.attention["atmosphere"][conversation][i]
    there = [m for m in REPORT.card.widths if c.available[m][i]]
    texts += [f"{m} absent" for m in REPORT.card.widths if m not in there]
    return texts, [*(100 * row), 100 * attention], [predictions.weights[m][conversation][i] for m in there]


def outcomes(split, conversation):
    c = SPLITS[split].conversations[conversation]
    guesses = SPLITS[split].predictions.probabilities[conversation].argmax(1)
    return [UNLABELLED if g < 0 else RIGHT if g == p else WRONG for g, p in zip(c.labels, guesses, strict=True)]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_utterance_is_shown_with_its_predictions(page, split):
    choose(page, "split", split)
    for conversation in range(len(SPLITS[split].conversations)):
        shown = cards(page)
        assert len(shown) == len(SPLITS[split].conversations[conversation])
        for i, text in enumerate(shown):
            texts, percentages, weights = expected_card(split, conversation, i)
            assert [part for part in texts if part not in text] == []
            np.testing.assert_allclose([float(n) for n in re.findall(r"([\d.]+) %", text)], percentages, atol=0.06)
            found = re.findall(r"(?:text|audio) (\d\.\d\d)\b", text)
            np.testing.assert_allclose([float(n) for n in found], weights, atol=0.006)
        click(page, "next")
    # After the last one comes the first.
    assert chosen(page, "conversation") == SPLITS[split].conversations[0].id


def test_filters_show_matching_utterances_and_skip_conversations_without_any(page):
    passed_over = 0
    for value, wanted in (("errors", WRONG), ("unlabelled", UNLABELLED)):
        choose(page, "filter", value)
        for i, conversation in enumerate(SPLITS["test"].conversations):
            count = outcomes("test", i).count(wanted)
            passed_over += not count
            if count:
                assert chosen(page, "conversation") == conversation.id
                shown = cards(page)
                assert len(shown) == count and all(wanted in text for text in shown)
                click(page, "next")
    assert passed_over


def test_a_count_of_the_confusion_matrix_links_to_its_utterances(page):
    cell = next(
        link
        for link in page.find_elements(By.CSS_SELECTOR, "a[href^='#split=test']")
        if link.get_attribute("href").rsplit("=", 1)[1] not in {f"{i}-{i}" for i in range(len(EMOTIONS))}
    )
    gold, predicted = map(int, cell.get_attribute("href").rsplit("=", 1)[1].split("-"))
    count = int(cell.text)
    cell.click()
    seen, first = 0, chosen(page, "conversation")
    while True:
        shown = cards(page)
        assert all(f"gold {EMOTIONS[gold]} · predicted {EMOTIONS[predicted]}" in text for text in shown)
        seen += len(shown)
        click(page, "next")
        if chosen(page, "conversation") == first:
            break
    assert seen == count
    top = page.execute_script("return document.getElementById('utterances').getBoundingClientRect().top")
    assert 0 <= top < 800


def test_conversations_have_links_and_the_back_button_works(page, address):
    wanted = SPLITS["validation"].conversations[1]
    page.get(f"{address}#{urlencode({'split': 'validation', 'conversation': wanted.id, 'filter': 'all'})}")
    assert (chosen(page, "split"), chosen(page, "conversation")) == ("validation", wanted.id)
    assert len(cards(page)) == len(wanted)
    click(page, "previous")
    assert chosen(page, "conversation") == SPLITS["validation"].conversations[0].id
    page.back()
    assert chosen(page, "conversation") == wanted.id
    for nonsense in ("#split=__proto__&filter=9-9&conversation=none", "#scores", "#%&="):
        page.get(address + nonsense)
        assert len(cards(page)) == len(SPLITS["test"].conversations[0])


def test_a_link_to_a_heading_keeps_the_conversation(page):
    click(page, "next")
    shown = chosen(page, "conversation")
    page.find_element(By.CSS_SELECTOR, ".contents a[href='#scores']").click()
    assert chosen(page, "conversation") == shown == SPLITS["test"].conversations[1].id
    click(page, "next")
    assert chosen(page, "conversation") == SPLITS["test"].conversations[2].id


def test_works_from_the_keyboard(page):
    first, second = (c.id for c in SPLITS["test"].conversations[:2])
    utterances = page.find_element(By.ID, "utterances")
    utterances.send_keys(Keys.ARROW_RIGHT)
    assert chosen(page, "conversation") == second
    utterances.send_keys(Keys.ARROW_LEFT)
    assert chosen(page, "conversation") == first
    page.find_element(By.ID, "split").send_keys(Keys.TAB)
    order = []
    for _ in range(5):
        order.append(page.switch_to.active_element.get_attribute("id"))
        page.switch_to.active_element.send_keys(Keys.TAB)
    assert order == ["filter", "previous", "conversation", "next", "utterances"]
    page.find_element(By.ID, "next").send_keys(Keys.ENTER)
    assert chosen(page, "conversation") == second
    assert page.switch_to.active_element.get_attribute("id") == "next"


def test_a_script_in_a_sentence_is_shown_and_not_run(page):
    assert page.find_element(By.CSS_SELECTOR, ".sentence").get_property("textContent") == HOSTILE
    assert page.execute_script("return window.harmed") is None
    assert page.find_elements(By.TAG_NAME, "img") == []


def test_nothing_is_fetched(page):
    assert page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(page, address, width, scheme):
    show(page, address, width=width, scheme=scheme)
    page.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script("return window.innerWidth") == width
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]


# A page of predictions without gold labels.

FOUND = predicted.predicted()


@pytest.fixture(scope="module")
def predictions_address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions") / "out"
    write_prediction_files(folder, FOUND, predicted.CARD, {"run": HOSTILE})
    return (folder / "predictions.html").as_uri()


@pytest.fixture
def predictions_page(browser, predictions_address):
    show(browser, predictions_address, width=1280)
    yield browser
    assert browser.get_log("browser") == []


def guessed(conversation):
    return FOUND.predictions.probabilities[conversation].argmax(1)


def test_predictions_are_shown_with_times_and_spread(predictions_page):
    for i, conversation in enumerate(predicted.CONVERSATIONS):
        shown = cards(predictions_page)
        assert chosen(predictions_page, "conversation") == conversation.id and len(shown) == len(conversation)
        found = FOUND.predictions
        for j, text in enumerate(shown):
            assert f"predicted {predicted.EMOTIONS[guessed(i)[j]]} · agreement" in text
            assert "unlabelled" not in text and "gold" not in text
            pairs = [(float(p), float(sd)) for p, sd in re.findall(r"([\d.]+) ± ([\d.]+) %", text)]
            expected = 100 * np.stack([found.probabilities[i][j], found.spread.deviations[i][j]], axis=1)
            np.testing.assert_allclose(pairs, expected, atol=0.06)
        click(predictions_page, "next")
    # Of the last conversation, whose second utterance has no time.
    assert "· u0 · 1:00:00.0–1:00:00.3" in shown[0] and "· u1 said by" in shown[1]


def test_what_is_no_split_is_not_offered_as_one(predictions_page):
    assert not settled(predictions_page).find_element(By.ID, "split").is_displayed()
    assert predictions_page.find_element(By.ID, "filter").is_displayed()


def test_an_emotions_count_links_to_its_utterances(predictions_page):
    link = predictions_page.find_element(By.CSS_SELECTOR, "a[href^='#split=&filter=predicted-']")
    emotion, count = int(link.get_attribute("href").rsplit("-", 1)[1]), int(link.text)
    link.click()
    assert chosen(predictions_page, "filter") == f"predicted-{emotion}"
    seen = 0
    for _ in range(sum(emotion in guessed(i) for i in range(2))):
        shown = cards(predictions_page)
        assert all(f"predicted {predicted.EMOTIONS[emotion]} ·" in text for text in shown)
        seen += len(shown)
        click(predictions_page, "next")
    assert seen == count


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_utterance_has_the_colour_of_its_emotion(predictions_page, predictions_address, scheme):
    show(predictions_page, predictions_address, width=1280, scheme=scheme)
    colours = emotion_colours(predicted.EMOTIONS)
    items = settled(predictions_page).find_elements(By.CSS_SELECTOR, "#utterances > li")
    for item, emotion in zip(items, guessed(0), strict=True):
        colour = colours[emotion].on_light if scheme == "light" else colours[emotion].on_dark
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        assert item.value_of_css_property("border-left-color") == f"rgba({red}, {green}, {blue}, 1)"


def test_a_script_in_a_transcript_or_a_fact_is_shown_and_not_run(predictions_page):
    assert predictions_page.find_element(By.CSS_SELECTOR, ".sentence").get_property("textContent") == HOSTILE
    assert predictions_page.execute_script("return window.harmed") is None
    assert predictions_page.find_elements(By.TAG_NAME, "img") == []
    assert predictions_page.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_of_predictions_fits_its_window(predictions_page, predictions_address, width):
    show(predictions_page, predictions_address, width=width)
    assert predictions_page.execute_script("return document.documentElement.scrollWidth") <= width
    assert predictions_page.execute_script("return window.innerWidth") == width
