"""Numbers, nouns and verbs agree."""

from hpsweep.english import are, counted, have, with_article


def test_a_number_agrees_with_its_noun_and_its_verb() -> None:
    assert [counted(n, "trial") for n in (0, 1, 2, 1200)] == ["0 trials", "1 trial", "2 trials", "1,200 trials"]
    assert counted(1, "value of lr", "values of lr") == "1 value of lr"
    assert counted(3, "value of lr", "values of lr") == "3 values of lr"
    assert (are(1), are(0), have(1), have(2)) == ("is", "are", "has", "have")


def test_a_noun_has_the_article_that_its_sound_asks_for() -> None:
    nouns = ("init std", "learning rate", "embedding lr mult", "alpha input", "weight decay", "unit")
    assert [with_article(noun).split()[0] for noun in nouns] == ["an", "a", "an", "an", "a", "a"]
